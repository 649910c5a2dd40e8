"""Trains every zone of the legacy example, with its own code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import raycelery

from .. import work
from ..calls import Call, WrongResultError, call, import_path

#: Folder of the example in a checkout, and in an installation.
_PLACES = ("../legacy_examples/zone_forecast", "legacy_examples/zone_forecast")


def folder() -> str:
    """Return the legacy project's folder.

    Raises:
        RuntimeError: it is not part of this installation.
    """
    package = Path(raycelery.__file__).parent
    found = next((package / place for place in _PLACES if (package / place / "forecast.py").exists()), None)
    if found is None:
        raise RuntimeError("the example zone_forecast is not part of this installation: reinstall raycelery")
    return str(found.resolve())


def train(origin: str, dest: str, daypart: str) -> dict[str, Any]:
    """Train, backtest and forecast one partition, as the project's task does."""
    from forecast import Forecast

    result: dict[str, Any] = Forecast(origin, dest, daypart).run()
    return result


def prepare() -> None:
    """Import what the training needs, and read its tables."""
    import forecast  # noqa: F401 - pandas and scikit-learn
    from data import catalog, tables

    tables()
    catalog()


class Workload(work.Workload):
    """All partitions; the zone with the most departures comes first."""

    name = "zones"
    about = "the zone training of legacy_examples/zone_forecast: 1,404 real models of about 0.2 s each"
    systems: Sequence[str] = work.ALL
    figures: Sequence[str] = (
        "makespan", "throughput", "utilisation", "queueing_p50", "queueing_p95", "queueing_max", "memory",
    )  # fmt: skip

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        # For this process and the workers.
        import_path(folder())
        yield {"PYTHONPATH": os.pathsep.join([folder(), os.environ.get("PYTHONPATH", "")])}

    def partitions(self) -> list[tuple[str, str, str]]:
        """Return the partitions to train."""
        from data import partitions

        found: list[tuple[str, str, str]] = partitions(1 if self.settings.quick else None)
        return found

    def warm(self) -> str:
        return f"{__name__}:prepare"

    def calls(self, system: str) -> list[Call]:
        return [call(train, *partition) for partition in self.partitions()]

    def check(self, calls: list[Call], values: list[Any]) -> None:
        # The numbers themselves are checked by comparing the systems' results.
        work.expect(calls, [(v["origin"], v["dest"], v["daypart"]) for v in values], lambda one: one.args)
        for value in values:
            if len(value["forecast"]) != 7 or not all(day["departures"] >= 0 for day in value["forecast"]):
                raise WrongResultError(f"{value['zone']} {value['daypart']} has no forecast of seven days")
