"""Runs one workload on one system, in its own process: start, warm up, run, check, stop.

``python -m raycelery.bench.turn`` reads the task from standard input as JSON and reports progress through a pipe. It
stops everything it started on SIGTERM, and when its parent has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import psutil

from . import systems, workloads
from .calls import Call, Fleet, WrongResultError
from .record import Outcome
from .sampling import end_left
from .systems.base import SETUP_VARIABLE, WARM, postponed
from .systems.redis import URL_VARIABLE
from .work import Settings

#: Environment variable that marks the processes of a turn.
MARK = "RAYCELERY_BENCH_TURN"
#: Least seconds between two reports of progress.
_OFTEN = 0.2
#: Seconds before and after the measured time, in which the parent samples CPU and memory.
_LOOK = 0.1


class Reporter:
    """Reports events to the parent process, as a line of JSON each.

    Arguments:
        descriptor: file descriptor of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", buffering=1)
        self._said = 0.0

    def say(self, event: str, **details: Any) -> None:
        """Report an event with the current time."""
        self._file.write(json.dumps({"event": event, "time": time.time(), **details}) + "\n")

    def progress(self, phase: str) -> Callable[[int, int], None]:
        """Return a function that reports the number of finished steps and of all steps, at most five times a second."""

        def show(done: int, of: int) -> None:
            now = time.monotonic()
            if done == of or now - self._said > _OFTEN:
                self._said = now
                self.say("progress", phase=phase, done=done, of=of)

        return show


def columns(outcomes: list[Outcome], began: float) -> dict[str, list[Any]]:
    """Return the outcomes as columns; times are in seconds since ``began``."""

    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - began, 6)

    return {
        "group": [one.group for one in outcomes],
        "submitted": [since(one.submitted) for one in outcomes],
        "calling": [round(one.calling, 7) for one in outcomes],
        "started": [since(one.started) for one in outcomes],
        "ended": [since(one.ended) for one in outcomes],
        "taken": [since(one.taken) for one in outcomes],
        "cpu": [None if one.cpu is None else round(one.cpu, 6) for one in outcomes],
        "slot": [one.slot for one in outcomes],
        "error": [one.error for one in outcomes],
    }


def task_options(calls: list[Call], fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Return the options of each task, as in ``@app.task(num_cpus=2)``, if all its calls ask for the same."""
    asked: dict[str, set[tuple[float, int | None]]] = {}
    for call in calls:
        asked.setdefault(call.target, set()).add((fleet.num_cpus_of(call), call.memory))
    options: dict[str, dict[str, Any]] = {}
    for target, requests in asked.items():
        num_cpus, memory = next(iter(requests))
        written = {"num_cpus": num_cpus, **({"memory": memory} if memory else {})}
        options[target] = written if len(requests) == 1 else {}
    return options


def warm_options(calls: list[Call], fleet: Fleet) -> dict[str, Any]:
    """Return the options of the warm-up task: those of the calls if all are equal, to run on the same workers."""
    asked = {(fleet.num_cpus_of(call), call.memory) for call in calls}
    num_cpus, memory = asked.pop() if len(asked) == 1 else (fleet.num_cpus, None)
    return {"num_cpus": num_cpus, **({"memory": memory} if memory else {})}


def sized(calls: list[Call], fleet: Fleet, settings: Settings) -> tuple[list[Call], Fleet]:
    """Return calls and fleet after applying the settings ``sample``, ``num_cpus`` and ``memory``."""
    if settings.sample is not None:
        count = min(settings.sample, len(calls))
        calls = [calls[int((number + 0.5) * len(calls) / count)] for number in range(count)]
    if settings.num_cpus is not None:
        calls = [replace(one, num_cpus=settings.num_cpus, memory=settings.memory) for one in calls]
        slots = max(1, int(fleet.cpus / settings.num_cpus + 1e-9))
        fleet = replace(fleet, slots=slots, num_cpus=settings.num_cpus)
    return calls, fleet


def run(spec: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Run the turn that ``spec`` describes; return its measurements as JSON data."""
    settings = Settings(**spec["settings"])
    workload = workloads.load(spec["workload"])(settings)
    name = spec["system"]
    with workload.environment() as variables:
        os.environ.update(variables)
        every = workload.calls(name)
        calls, fleet = sized(every, workload.fleet(name), settings)
        setup = {
            "targets": {WARM: warm_options(calls, fleet), **task_options(calls, fleet)},
            "applications": list(dict.fromkeys(call.application for call in calls)),
            "serializer": workload.serializer,
            "celery": dict(workload.celery_settings),
        }
        os.environ[SETUP_VARIABLE] = json.dumps(setup)
        os.environ.pop(URL_VARIABLE, None)
        starting = time.time()
        reporter.say("progress", phase="starting", done=0, of=1)
        system = systems.load(name)(fleet, setup, Path(spec["scratch"]))
        try:
            system.start()
            system.warm_up(workload.warm(), calls[0].application, reporter.progress("warming up"))
            reporter.say("running")
            time.sleep(_LOOK)
            with system.measuring() if settings.sample else contextlib.nullcontext() as samples:
                began = time.time()
                drive = workload.drive(system, calls, reporter.progress("running"))
                ended = time.time()
            reporter.say("ended")
            time.sleep(_LOOK)
        finally:
            with postponed(signal.SIGTERM):  # SIGTERM asks for a stop, which is under way
                started = psutil.Process().children(recursive=True)
                system.stop()
                # If Ray is stopped while it starts, its agents stay for a minute.
                end_left(started, MARK, os.environ[MARK])
        values = [outcome.value for outcome in drive.outcomes]
        workload.check(calls, values)
    return {
        "began": began,
        "ended": ended,
        "start_seconds": began - starting,
        "fleet": asdict(fleet),
        "total": len(every),
        "digest": workload.digest(values),
        "own": drive.figures,
        **({"samples": [asdict(one) for one in samples]} if samples is not None else {}),
        "calls": columns(drive.outcomes, began),
    }


def _die_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _leave(code: int) -> NoReturn:
    """Exit without cleaning up Python objects; everything is stopped already.

    Otherwise each Celery result that is garbage-collected would try to reach the stopped Redis for 20 s. So it must be
    called while an exception still refers to the results.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> NoReturn:
    """Run the turn that standard input describes."""
    signal.signal(signal.SIGTERM, _terminated)
    spec = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    reporter = Reporter(spec["pipe"])
    try:
        result = run(spec, reporter)
        Path(spec["result"]).write_text(json.dumps(result))
        reporter.say("done")
        _leave(0)
    except SystemExit as stopped:
        _leave(int(stopped.code or 0))
    except BrokenPipeError:  # the parent has ended
        _leave(1)
    except WrongResultError as error:
        reporter.say("failed", error=str(error))
        _leave(1)
    except Exception as error:  # any error of a user's workload is reported to the parent, and logged
        traceback.print_exc()
        reporter.say("failed", error=f"{type(error).__name__}: {error}")
        _leave(1)


if __name__ == "__main__":
    main()
