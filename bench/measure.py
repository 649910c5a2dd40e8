"""Runs a workload on each system in turn (A B A B) and collects the measurements."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .sampling import Sampler, Usage, end_left, socket_bytes
from .turn import MARK
from .work import Settings

#: Seconds that a turn's process may take to stop what it started.
_STOP_SECONDS = 40

#: Called with the phase, the number of finished steps, and the number of all steps.
Progress = Callable[[str, int, int], None]


class TurnError(Exception):
    """A system could not finish its turn; the message says why."""


@dataclass
class Trial:
    """All turns of a workload.

    Arguments:
        workload: its name.
        systems: the systems that took part; the others are compared with the first.
        turns: each as JSON: "system", "round", "began", "ended" and what `bench.turn.run` returned, with "usage".
        problem: why the systems cannot be compared; None if they can.
    """

    workload: str
    systems: list[str]
    turns: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None


def measure(
    workload: str, systems: Sequence[str], settings: Settings, repeat: int, progress: Callable[[str, int], Progress]
) -> Trial:
    """Give each system ``repeat`` turns at the workload.

    Arguments:
        workload: its name.
        systems: in the order of their turns.
        settings: for all of them.
        repeat: number of rounds.
        progress: called with each system and round; returns the function that is called with the progress.

    Raises:
        KeyboardInterrupt: the user interrupted it; everything it started is stopped.
    """
    trial = Trial(workload, list(systems))
    for number in range(repeat):
        for system in systems:
            try:
                turn = take_turn(workload, system, settings, progress(system, number))
            except TurnError as error:
                trial.problem = f"{system}: {error}"
                return trial
            trial.turns.append({"system": system, "round": number, **turn})
            trial.problem = differing(trial.turns)
            if trial.problem:
                return trial
    return trial


def differing(turns: Sequence[dict[str, Any]]) -> str | None:
    """Return a message that says which systems' results differ; None if all are equal."""
    by_digest: dict[str, dict[str, None]] = {}
    for turn in turns:
        by_digest.setdefault(turn["digest"], {})[turn["system"]] = None
    if len(by_digest) < 2:
        return None
    return "results differ, so nothing is compared: " + " is unlike ".join(
        " and ".join(systems) for systems in by_digest.values()
    )


def take_turn(workload: str, system: str, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Run one turn in its own process, sample its CPU and memory, and end whatever it leaves behind.

    Raises:
        TurnError: it failed.
    """
    # Short: Ray's Unix sockets under it must fit into 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp" if os.path.isdir("/tmp") else None))
    mark = uuid.uuid4().hex
    reading, writing = os.pipe()
    spec = {
        "workload": workload,
        "system": system,
        "settings": asdict(settings),
        "scratch": str(scratch),
        "result": str(scratch / "result.json"),
        "pipe": writing,
    }
    log = scratch / "turn.log"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.turn"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                # In its own session, so that Ctrl-C reaches only this process, which then stops the turn.
                start_new_session=True,
                env={**os.environ, MARK: mark, "PYTHONPATH": _path(), "PYTHONUNBUFFERED": "1"},
            )
        os.close(writing)
        sampler = Sampler(process.pid)
        sampler.start()
        try:
            return _follow(process, spec, reading, log, sampler, progress)
        finally:
            _stop(process)
            sampler.finish()
            end_left(sampler.seen, MARK, mark)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _follow(
    process: subprocess.Popen[bytes],
    spec: dict[str, Any],
    reading: int,
    log: Path,
    sampler: Sampler,
    progress: Progress,
) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write(json.dumps(spec).encode() + b"\n")
    process.stdin.flush()
    moved: list[int | None] = []
    failure = None
    with os.fdopen(reading) as events:
        for line in events:
            event = json.loads(line)
            kind = event["event"]
            if kind == "progress":
                progress(event["phase"], event["done"], event["of"])
            elif kind in ("running", "ended"):
                moved.append(socket_bytes())
                sampler.look()
            elif kind == "failed":
                failure = event["error"]
                break
            elif kind == "done":
                break
    usage = sampler.finish()
    if failure is not None:
        raise TurnError(failure)
    result = Path(spec["result"])
    if not result.exists():
        raise TurnError(f"its process ended with status {process.wait(_STOP_SECONDS)}:\n{_tail(log)}")
    turn: dict[str, Any] = {"cpus": psutil.cpu_count(), **json.loads(result.read_text())}
    turn["usage"] = _during(usage, turn["began"], turn["ended"])
    turn["socket_bytes"] = None if None in moved else moved[1] - moved[0]  # type: ignore[operator]
    return turn


def _during(usage: Usage, began: float, ended: float) -> dict[str, list[Any]]:
    """Return the samples between two times, and the nearest before and after; times in seconds since the first."""
    times = usage.time
    first = max((index for index, moment in enumerate(times) if moment <= began), default=0)
    last = min((index for index, moment in enumerate(times) if moment >= ended), default=len(times) - 1)
    part = slice(first, last + 1)
    return {
        "time": [round(moment - began, 3) for moment in times[part]],
        "cpu": [round(seconds - usage.cpu[first], 3) for seconds in usage.cpu[part]],
        "memory": usage.memory[part],
        "processes": usage.processes[part],
        "machine": [round(seconds - usage.machine[first], 3) for seconds in usage.machine[part]],
    }


def _path() -> str:
    """Return the import path of a turn and its workers: this process's, and its working directory."""
    entries = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(dict.fromkeys(entry for entry in entries if entry))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Wait for the turn to end; terminate it if it was interrupted."""
    assert process.stdin is not None
    try:
        process.stdin.close()  # closing it makes the turn end
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path, size: int = 2000) -> str:
    return log.read_text(errors="replace")[-size:] if log.exists() else ""


def machine() -> dict[str, Any]:
    """Describe this machine and what is installed."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    names = ("raycelery", "ray", "celery", "redis", "dramatiq", "huey", "taskiq", "pandas", "scikit-learn")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor() or platform.processor() or platform.machine(),
        "cpus": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "versions": {name: found for name in names if (found := version(name))},
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "load": os.getloadavg(),
    }


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None  # not Linux
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed copy
    return found.stdout.strip()
