"""Tasks that do nothing: what the machinery itself costs."""

from __future__ import annotations

from typing import Any

from .. import work
from ..calls import Call, call


def noop(value: int) -> int:
    """Return the value, so that a caller can tell whose result it has."""
    return value


class Workload(work.Workload):
    """All submitted, then all taken."""

    name = "noop"
    about = "10,000 tasks that do nothing: what the machinery itself costs"
    systems = work.ALL
    figures = ("throughput", "calling", "cpu_per_task", "memory")

    def calls(self, system: str) -> list[Call]:
        return [call(noop, value) for value in range(300 if self.settings.quick else 10_000)]

    def check(self, calls: list[Call], values: list[Any]) -> None:
        work.expect(calls, values, lambda one: one.args[0])
