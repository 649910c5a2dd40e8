"""The systems of the micro benchmarks, each with the same measurements.

Every measurement checks the results and returns seconds per task, call or round trip, so that slow systems can run
fewer of them.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Protocol

from . import functions

#: Seconds to wait for a result.
TIMEOUT = 300

CELERY, TASKS, ACTORS, OURS = "Celery", "Ray tasks", "Ray actors", "raycelery"


class WrongResultError(AssertionError):
    """A system returned something else than it was asked to compute."""


def _check(got: Any, wanted: Any) -> None:
    if got != wanted:
        raise WrongResultError(f"{str(got)[:200]} is not {str(wanted)[:200]}")


class System(Protocol):
    """The interface of a system."""

    name: str

    def warm_up(self) -> None:
        """Start both workers: Ray ends idle ones after a second, while other systems have their turn."""

    def throughput(self, count: int) -> float:
        """Submit no-ops, then read all results; return the seconds per task."""

    def round_trip(self, count: int) -> float:
        """Submit a no-op and wait for it, ``count`` times; return the median seconds."""

    def burst(self, count: int) -> float:
        """Submit no-ops; return the seconds per call. Their results are read afterwards."""

    def chord(self, count: int) -> float:
        """Run a chord of no-ops and a body that sums their results; return its seconds."""

    def frames(self, count: int, frame: Any) -> float:
        """Call tasks that read the same large frame; return the seconds per task."""


class _Calls:
    """Measurements based on two methods: submit a no-op, and read a result."""

    def submit(self, value: int) -> Any:
        raise NotImplementedError

    def take(self, handle: Any) -> Any:
        raise NotImplementedError

    def take_all(self, handles: list[Any]) -> list[Any]:
        take = self.take
        return [take(handle) for handle in handles]

    def warm_up(self) -> None:
        self.burst(50)

    def throughput(self, count: int) -> float:
        submit = self.submit
        began = time.perf_counter()
        handles = [submit(value) for value in range(count)]
        got = self.take_all(handles)
        seconds = time.perf_counter() - began
        _check(got, list(range(count)))
        return seconds / count

    def round_trip(self, count: int) -> float:
        samples, got = [], []
        for value in range(count):
            began = time.perf_counter()
            result = self.take(self.submit(value))
            samples.append(time.perf_counter() - began)
            got.append(result)
        _check(got, list(range(count)))
        return statistics.median(samples)

    def burst(self, count: int) -> float:
        submit = self.submit
        began = time.perf_counter()
        handles = [submit(value) for value in range(count)]
        seconds = time.perf_counter() - began
        _check(self.take_all(handles), list(range(count)))
        return seconds / count


class Tasks(_Calls):
    """A Celery application: stock Celery's or raycelery's.

    Arguments:
        name: its name in the report.
        module: the module with the tasks.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module

    def submit(self, value: int) -> Any:
        return self.module.noop.delay(value)

    def take(self, handle: Any) -> Any:
        return handle.get(timeout=TIMEOUT)

    def chord(self, count: int) -> float:
        from celery import chord

        noop, total = self.module.noop, self.module.total
        began = time.perf_counter()
        got = chord([noop.s(value) for value in range(count)], total.s()).delay().get(timeout=TIMEOUT)
        seconds = time.perf_counter() - began
        _check(got, sum(range(count)))
        return seconds

    def frames(self, count: int, frame: Any) -> float:
        wanted = functions.checksum(frame)
        began = time.perf_counter()
        handles = [self.module.checksum.delay(frame) for _ in range(count)]
        got = [tuple(self.take(handle)) for handle in handles]
        seconds = time.perf_counter() - began
        _check(got, [wanted] * count)
        return seconds / count


class RayTasks(_Calls):
    """Ray remote functions, two at a time: each takes a CPU."""

    name = TASKS

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._noop, self._checksum = ray.remote(functions.noop), ray.remote(functions.checksum)
        self._sum = ray.remote(lambda *values: functions.total(list(values)))

    def submit(self, value: int) -> Any:
        return self._noop.remote(value)

    def take(self, handle: Any) -> Any:
        return self._ray.get(handle, timeout=TIMEOUT)

    def take_all(self, handles: list[Any]) -> list[Any]:
        return list(self._ray.get(handles, timeout=TIMEOUT))

    def chord(self, count: int) -> float:
        began = time.perf_counter()
        got = self.take(self._sum.remote(*[self._noop.remote(value) for value in range(count)]))
        seconds = time.perf_counter() - began
        _check(got, sum(range(count)))
        return seconds

    def frames(self, count: int, frame: Any) -> float:
        # Put once into the object store, as Ray users do.
        wanted = functions.checksum(frame)
        began = time.perf_counter()
        shared = self._ray.put(frame)
        got = self.take_all([self._checksum.remote(shared) for _ in range(count)])
        seconds = time.perf_counter() - began
        _check(got, [wanted] * count)
        return seconds / count


class _Actor:
    def noop(self, value: Any) -> Any:
        return functions.noop(value)


class RayActors(_Calls):
    """Calls of two Ray actors, alternating."""

    name = ACTORS

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._actors = [ray.remote(_Actor).options(num_cpus=0).remote() for _ in range(2)]

    def submit(self, value: int) -> Any:
        return self._actors[value % 2].noop.remote(value)

    def take(self, handle: Any) -> Any:
        return self._ray.get(handle, timeout=TIMEOUT)

    def take_all(self, handles: list[Any]) -> list[Any]:
        return list(self._ray.get(handles, timeout=TIMEOUT))
