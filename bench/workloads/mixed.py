"""Many small models and a few large ones in one queue: the cost of one worker size for all."""

from __future__ import annotations

import threading
import time
from typing import Any

from .. import work
from ..calls import Call, Fleet, call

_SMALL_SECONDS, _LARGE_SECONDS = 0.05, 5.0
_LARGE_BYTES = 2 * 10**9
_PAGE = 4096


def _compute(seconds: float) -> None:
    """Compute for some CPU seconds on one CPU."""
    import numpy as np

    block = np.random.default_rng(0).random((300, 300))
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        np.sort(block, axis=0)  # releases the interpreter's lock, and has no threads of its own


def small(number: int) -> int:
    """Train a small model: 50 ms of one CPU."""
    _compute(_SMALL_SECONDS)
    return number


def large(number: int, seconds: float, size: int) -> int:
    """Train a large model: two threads, and ``size`` bytes of memory."""
    held = bytearray(size)
    for position in range(0, size, _PAGE):
        held[position] = 1
    threads = [threading.Thread(target=_compute, args=(seconds,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return number + len(held) - size


def prepare() -> None:
    """Import NumPy."""
    import numpy  # noqa: F401


class Workload(work.Workload):
    """On queues all workers fit the largest model, so there are few; on Ray each task asks for its own."""

    name = "mixed"
    about = (
        "models of 50 ms and a few of 5 s, 2 CPUs and 2 GB in one queue: legacy with workers that fit the largest, on "
        "Ray each with what it needs"
    )
    figures = ("queueing_p95:small", "queueing_p50:small", "queueing_max:small", "queueing_p95:large", "makespan",
               "utilisation", "memory")  # fmt: skip

    def fleet(self, system: str) -> Fleet:
        concurrency = max(2, self.settings.concurrency)
        if system in work.QUEUES:
            return Fleet(concurrency // 2)
        return Fleet(concurrency, cpus=concurrency)

    def warm(self) -> str:
        return f"{__name__}:prepare"

    def calls(self, system: str) -> list[Call]:
        count, every = (16, 8) if self.settings.quick else (160, 20)
        seconds, size = (0.3, 10**7) if self.settings.quick else (_LARGE_SECONDS, _LARGE_BYTES)
        calls = []
        for number in range(count):
            if number % every == 0:
                calls.append(call(large, number, seconds, size, group="large", num_cpus=2.0, memory=size))
            calls.append(call(small, number, group="small", num_cpus=1.0))
        return calls

    def check(self, calls: list[Call], values: list[Any]) -> None:
        work.expect(calls, values, lambda one: one.args[0])
