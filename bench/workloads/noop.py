"""Tasks that do nothing: the overhead per task."""

from __future__ import annotations

from typing import Any

from .. import work
from ..calls import Call, call


def noop(value: int) -> int:
    """Return the value."""
    return value


class Workload(work.Workload):
    """All tasks are submitted, then all results are read."""

    name = "noop"
    about = "10,000 tasks that do nothing: what the machinery itself costs"
    systems = work.ALL
    figures = ("throughput", "calling", "cpu_per_task", "memory")

    def calls(self, system: str) -> list[Call]:
        return [call(noop, value) for value in range(300 if self.settings.quick else 10_000)]

    def check(self, calls: list[Call], values: list[Any]) -> None:
        work.expect(calls, values, lambda one: one.args[0])
