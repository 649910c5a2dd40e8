"""One task at a time: the time until a caller has the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import work
from ..calls import Call, call
from .noop import noop

if TYPE_CHECKING:
    from ..systems.base import System


class Workload(work.Workload):
    """Each call is submitted when the result of the one before has come."""

    name = "roundtrip"
    about = "a task that does nothing, submitted and waited for, again and again: latency"
    systems = work.ALL
    figures = ("latency_p50", "latency_p95", "latency_p99", "cpu_per_task")

    def calls(self, system: str) -> list[Call]:
        return [call(noop, value) for value in range(50 if self.settings.quick else 2_000)]

    def drive(self, system: System, calls: list[Call], progress: Callable[[int, int], None]) -> work.Drive:
        outcomes = []
        for count, one in enumerate(calls, 1):
            outcomes += system.batch([one], lambda *_: None)
            progress(count, len(calls))
        return work.Drive(outcomes)

    def check(self, calls: list[Call], values: list[Any]) -> None:
        work.expect(calls, values, lambda one: one.args[0])
