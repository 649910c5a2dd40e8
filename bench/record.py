"""What runs around every task on every system: it notes when, where and with how much CPU the task ran."""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .calls import resolve

_HOST = socket.gethostname()


@dataclass
class Outcome:
    """What is known of one call; times in seconds since the epoch.

    Arguments:
        group: of the call.
        submitted: when the caller began to submit it.
        calling: seconds that the caller spent on that.
        value: what the task returned; None if it failed.
        started: when its function began; None if it failed.
        ended: when its function returned.
        cpu: CPU seconds of the function.
        slot: which process ran it, on which host.
        taken: when the caller had the result.
        error: what the task failed with.
    """

    group: str
    submitted: float
    calling: float
    value: Any = None
    started: float | None = None
    ended: float | None = None
    cpu: float | None = None
    slot: str | None = None
    taken: float | None = None
    error: str | None = None

    def take(self, answer: Any, taken: float) -> None:
        """Note what :func:`recorded` returned."""
        self.value, self.started, self.ended, self.cpu, self.slot = answer
        self.taken = taken


def recorded(target: str) -> Callable[..., list[Any]]:
    """Return a function that calls the target and returns its value, start, end, CPU seconds and slot.

    Arguments:
        target: as a `bench.Call` names it; imported by the first call.
    """

    def run(*args: Any) -> list[Any]:
        called = _function(target)
        started, cpu = time.time(), time.thread_time()
        value = called(*args)
        used = time.thread_time() - cpu
        return [value, started, time.time(), used, f"{_HOST}:{os.getpid()}"]

    run.__name__ = run.__qualname__ = target.rpartition(":")[2].replace(".", "_")
    return run


@functools.cache
def _function(target: str) -> Callable[..., Any]:
    found: Callable[..., Any] = resolve(target)
    return found


def nothing() -> None:
    """Warm up a worker that has nothing to prepare."""


_warmed = threading.Event()


def warm(target: str) -> None:
    """Run ``target`` once per process, then wait a little, so that other workers get a turn as well."""
    if not _warmed.is_set():
        _function(target)()
        _warmed.set()
    time.sleep(0.1)
