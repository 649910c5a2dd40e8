"""Ten large hosts with one worker each against two CPUs per task, with time scaled 1:60."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import work
from ..calls import Call, Fleet, call

if TYPE_CHECKING:
    from ..systems.base import System

_HOSTS, _CPUS, _NUM_CPUS, _TASKS = 10, 16, 2, 1500
#: Mean seconds of a task, sigma of their log-normal distribution, and longest seconds.
_MEAN, _SIGMA, _LONGEST = 1.6, 0.6, 6.0


def train(number: int, seconds: float) -> int:
    """Sleep as long as a zone's training takes; there are more virtual CPUs than real ones."""
    time.sleep(seconds)
    return number


def lengths(count: int, mean: float) -> list[float]:
    """Return the seconds of each task: a skewed distribution of exactly this mean, the same one each time."""
    source = random.Random(2013)
    drawn = [min(source.lognormvariate(0.0, _SIGMA), _LONGEST / _MEAN) for _ in range(count)]
    return [round(length * mean * count / sum(drawn), 4) for length in drawn]


class Workload(work.Workload):
    """Ten workers on ten hosts against two CPUs a task on the same hosts."""

    name = "headline"
    about = (
        "1,500 trainings of skewed length on ten virtual hosts of 16 CPUs, time at 1:60: legacy with one worker per "
        "host, on Ray with 2 CPUs a task"
    )
    figures = ("makespan", "own:ideal:makespan / ideal for its slots::", "concurrency", "queueing_p50", "queueing_p95",
               "start")  # fmt: skip

    def _shape(self) -> tuple[int, int, int, float]:
        """Return the number of hosts, CPUs per host, number of tasks, and mean seconds per task."""
        return (2, 4, 24, 0.2) if self.settings.quick else (_HOSTS, _CPUS, _TASKS, _MEAN)

    def fleet(self, system: str) -> Fleet:
        hosts, cpus, _, _ = self._shape()
        if system in work.QUEUES:
            return Fleet(hosts)
        return Fleet(hosts * cpus // _NUM_CPUS, num_cpus=_NUM_CPUS, cpus=cpus, nodes=hosts)

    def calls(self, system: str) -> list[Call]:
        _, _, count, mean = self._shape()
        return [call(train, number, seconds) for number, seconds in enumerate(lengths(count, mean))]

    def drive(self, system: System, calls: list[Call], progress: Callable[[int, int], None]) -> work.Drive:
        began = time.time()
        drive = super().drive(system, calls, progress)
        seconds = time.time() - began
        drive.figures["ideal"] = seconds / ideal([one.args[1] for one in calls], system.fleet.slots)
        return drive

    def check(self, calls: list[Call], values: list[Any]) -> None:
        work.expect(calls, values, lambda one: one.args[0])


def ideal(seconds: list[float], slots: int) -> float:
    """Return the makespan of tasks that are started in this order on free slots, without any overhead."""
    busy = [0.0] * slots
    for length in seconds:
        first = min(range(slots), key=busy.__getitem__)
        busy[first] += length
    return max(busy)
