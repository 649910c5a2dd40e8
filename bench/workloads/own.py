"""The user's own tasks: calls that a module of theirs returns."""

from __future__ import annotations

import importlib
import os
from typing import Any

from .. import work
from ..calls import Call, Fleet, WrongResultError, import_path


class Workload(work.Workload):
    """The calls of the module that ``--module`` names.

    The module has ``calls(quick)``, which returns a list of :func:`bench.call`. It may have ``check(values)``, which
    raises where a result is wrong; ``comparable(value)``, the part of a result that must be equal everywhere;
    ``warm()``, which every worker runs before time is taken; ``workers``, how many a queue system has, and
    ``num_cpus``, what a task asks for on Ray where its call does not say; ``serializer``, "pickle" or "json".
    """

    name = "own"
    about = "your tasks: --module my.benchmark (see docs/benchmarks.md)"
    systems = work.ALL
    figures = ("makespan", "throughput", "utilisation", "queueing_p50", "queueing_p95", "queueing_max", "latency_p95",
               "calling", "cpu_per_task", "concurrency", "memory", "start")  # fmt: skip

    def __init__(self, settings: work.Settings) -> None:
        super().__init__(settings)
        if settings.module is None:
            raise ValueError("the workload 'own' needs --module, the name of a module that has calls(quick)")
        import_path(os.getcwd())
        self._module = importlib.import_module(settings.module)
        if not hasattr(self._module, "calls"):
            raise ValueError(f"the module {settings.module} has no calls(quick), which returns what to run")
        self.serializer = self._get("serializer", "pickle")

    def _get(self, name: str, default: Any) -> Any:
        return getattr(self._module, name, default)

    def fleet(self, system: str) -> Fleet:
        concurrency = self.settings.concurrency
        if system in work.QUEUES:
            return Fleet(self._get("workers", concurrency))
        asked = {one.num_cpus for one in self.calls(system)}
        num_cpus = self._get("num_cpus", asked.pop() if len(asked) == 1 else None)
        if num_cpus is None:
            num_cpus = 1
        workers = max(1, int(concurrency / num_cpus)) if num_cpus else concurrency
        return Fleet(workers, num_cpus=num_cpus, cpus=concurrency)

    def calls(self, system: str) -> list[Call]:
        found: list[Call] = list(self._module.calls(self.settings.quick))
        if not found:
            raise ValueError(f"{self.settings.module}.calls() returned nothing to run")
        return found

    def warm(self) -> str:
        return f"{self.settings.module}:warm" if hasattr(self._module, "warm") else super().warm()

    def check(self, calls: list[Call], values: list[Any]) -> None:
        try:
            self._get("check", lambda values: None)(values)
        except Exception as error:  # an AssertionError, or anything else that the user's code raises
            raise WrongResultError(f"{self.settings.module}.check: {error or type(error).__name__}") from error

    def comparable(self, value: Any) -> Any:
        return self._get("comparable", lambda value: value)(value)
