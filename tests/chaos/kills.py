"""Kills an application's processes with SIGKILL at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

import psutil

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import questions
from tests.chaos.work import app


class Kills:
    """A thread that kills processes of the application until it is told to stop; a context manager.

    Arguments:
        rng: decides whom and when.
        weights: how often executors and dispatchers ("executor", "dispatcher") are chosen, relative to each other.
        most: kills after which it stops by itself.
        pause: seconds between two kills, at least and at most.
    """

    def __init__(
        self, rng: random.Random, weights: Mapping[str, float], most: int, pause: tuple[float, float] = (0.05, 1.5)
    ) -> None:
        self._rng = rng
        self._weights = weights
        self._most = most
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.killed: Counter[str] = Counter()
        #: Every executor's process that it has seen.
        self.executors: set[int] = set()

    def __enter__(self) -> Kills:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while self.killed.total() < self._most and not self._stop.wait(self._rng.uniform(*self._pause)):
            with contextlib.suppress(DispatcherUnreachable):
                self._kill()

    def _kill(self) -> None:
        stats = app.client.call(questions.Stats(), timeout=30)
        executors = sorted(stats["executor_pids"].values())
        self.executors.update(executors)
        victims = {"executor": executors, "dispatcher": [stats["pid"]]}
        kind = self._rng.choices(list(self._weights), list(self._weights.values()))[0]
        if victims[kind]:
            # It may be in the middle of something now, or a little later.
            self._stop.wait(self._rng.uniform(0, 0.02))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rng.choice(victims[kind]), signal.SIGKILL)
                self.killed[kind] += 1

    def left(self, seen: set[int]) -> set[int]:
        """Return executors that run and belong to nobody.

        Arguments:
            seen: processes in which tasks have run.
        """
        known = set(app.client.call(questions.Stats())["executor_pids"].values())
        return {pid for pid in (self.executors | seen) - known if _runs(pid)}


def _runs(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "raycelery" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
