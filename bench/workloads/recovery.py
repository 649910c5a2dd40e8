"""Workers are killed while they run tasks: how many tasks are lost or run twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .. import work
from ..calls import Call, Fleet, call

if TYPE_CHECKING:
    from ..systems.base import System

_NOTES = "RAYCELERY_BENCH_RECOVERY"
#: Suffix of the file of a call that has finished its work.
_DONE = "done"


def work_on(number: int, seconds: float) -> int:
    """Sleep, and leave a file that tells which process ran the call and whether it finished."""
    notes = Path(os.environ[_NOTES])
    begun = notes / f"{number}.{os.getpid()}.{time.time_ns()}"
    begun.touch()
    time.sleep(seconds)
    begun.rename(f"{begun}.{_DONE}")
    return number


class Workload(work.Workload):
    """Every few seconds one process that runs a task is killed with SIGKILL."""

    name = "recovery"
    about = "200 tasks of 2 s on four slots while a busy worker is killed with -9 every 3 s (acks_late on both)"
    systems = ("celery", "raycelery")
    figures = ("own:lost:tasks lost:", "own:twice:tasks done twice:", "own:killed:workers killed::", "makespan",
               "utilisation")  # fmt: skip
    tolerant = True
    celery_settings: ClassVar[Mapping[str, Any]] = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # Celery redelivers without limit; raycelery drops a message after three workers died, by default.
        "ray_max_deliveries": 1000,
    }

    def _shape(self) -> tuple[int, float, float]:
        """Return the number of tasks, seconds per task, and seconds between two kills."""
        return (12, 0.4, 1.0) if self.settings.quick else (200, 2.0, 3.0)

    def fleet(self, system: str) -> Fleet:
        slots = 2 if self.settings.quick else 2 * self.settings.concurrency
        return Fleet(slots, cpus=slots)

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        with tempfile.TemporaryDirectory(prefix="rb-notes-") as folder:
            yield {_NOTES: folder}

    def calls(self, system: str) -> list[Call]:
        count, seconds, _ = self._shape()
        return [call(work_on, number, seconds) for number in range(count)]

    def drive(self, system: System, calls: list[Call], progress: Callable[[int, int], None]) -> work.Drive:
        notes = Path(os.environ[_NOTES])
        over = threading.Event()
        killed: list[int] = []
        killer = threading.Thread(target=_kill, args=(notes, self._shape()[2], over, killed), daemon=True)
        killer.start()
        try:
            drive = super().drive(system, calls, progress)
        finally:
            over.set()
            killer.join()
        finished = Counter(path.name.split(".")[0] for path in notes.glob(f"*.{_DONE}"))
        drive.figures = {
            "lost": sum(outcome.error is not None for outcome in drive.outcomes),
            "twice": sum(count > 1 for count in finished.values()),
            "killed": len(killed),
        }
        return drive

    def check(self, calls: list[Call], values: list[Any]) -> None:
        # Lost results are counted, and are no error.
        answered = [(one, value) for one, value in zip(calls, values, strict=True) if value is not None]
        work.expect([one for one, _ in answered], [value for _, value in answered], lambda one: one.args[0])

    def digest(self, values: list[Any]) -> str:
        return super().digest([])


def _kill(notes: Path, every: float, over: threading.Event, killed: list[int]) -> None:
    """Kill a process that runs a task, every ``every`` seconds."""
    source = random.Random(9)
    while not over.wait(every):
        running = [path for path in notes.iterdir() if path.suffix != f".{_DONE}"]
        pids = sorted({int(path.name.split(".")[1]) for path in running} - set(killed))
        if pids:
            victim = source.choice(pids)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
