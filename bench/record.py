"""Wraps the task function on every system, to record when, where and with how much CPU time it ran."""

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
    """The measurements of one call. Times are in seconds since the epoch.

    Arguments:
        group: group of the call.
        submitted: when the caller began to submit it.
        calling: seconds that submitting it took.
        value: what the task returned; None if it failed.
        started: when its function began; None if it failed.
        ended: when its function returned.
        cpu: CPU seconds of the function.
        slot: host and process that ran it.
        taken: when the caller had the result.
        error: the task's error; None if it succeeded.
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
        """Add what a function of :func:`recorded` returned, and when the caller got it."""
        self.value, self.started, self.ended, self.cpu, self.slot = answer
        self.taken = taken


def recorded(target: str) -> Callable[..., list[Any]]:
    """Return a function that calls the target and returns its value, start, end, CPU seconds and slot.

    Arguments:
        target: ``"package.module:function"``; imported by the first call.
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
    """Do nothing: the warm-up of a workload that needs none."""


_warmed = threading.Event()


def warm(target: str) -> None:
    """Run ``target`` once per process, then wait 0.1 s, so that the other workers get calls as well."""
    if not _warmed.is_set():
        _function(target)()
        _warmed.set()
    time.sleep(0.1)
