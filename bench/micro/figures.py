"""The figures of the micro benchmarks, their targets, and the report."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rich.table import Table

from .systems import ACTORS, CELERY, OURS, TASKS


@dataclass(frozen=True)
class Spread:
    """The median, lowest and highest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        return cls(statistics.median(numbers), min(numbers), max(numbers))


@dataclass(frozen=True)
class Faster:
    """Target: raycelery is ``times`` times faster than another system (median over pairs of rounds)."""

    than: str
    times: float

    def value(self, samples: Mapping[str, Sequence[float]]) -> Spread:
        pairs = zip(samples[self.than], samples[OURS], strict=True)
        return Spread.of([theirs / ours for theirs, ours in pairs])

    def met(self, value: Spread) -> bool:
        return value.median >= self.times

    def words(self, value: Spread, unit: Unit) -> tuple[str, str]:
        reached = f"{value.median:.2f}x ({value.low:.2f}-{value.high:.2f})"
        return f"{self.than} / raycelery: {reached}", f">= {self.times:.3g}x"


@dataclass(frozen=True)
class AtMost:
    """Target: raycelery's figure is at most a bound or, with ``more_than``, at most so much above another system's."""

    bound: float
    more_than: str | None = None

    def value(self, samples: Mapping[str, Sequence[float]]) -> Spread:
        if self.more_than is None:
            return Spread.of(samples[OURS])
        pairs = zip(samples[self.more_than], samples[OURS], strict=True)
        return Spread.of([ours - theirs for theirs, ours in pairs])

    def met(self, value: Spread) -> bool:
        return value.median <= self.bound

    def words(self, value: Spread, unit: Unit) -> tuple[str, str]:
        what = "raycelery" if self.more_than is None else f"raycelery - {self.more_than}"
        return f"{what}: {unit.spread(value)}", f"<= {unit.text(self.bound)}"


@dataclass(frozen=True)
class Unit:
    """How samples are formatted. Times are in seconds, and may be shown as a rate."""

    name: str
    scale: float = 1.0
    rate: bool = False

    def text(self, sample: float) -> str:
        number = self.scale / sample if self.rate else self.scale * sample
        return f"{number:,.0f} {self.name}" if number >= 100 else f"{number:.3g} {self.name}"

    def spread(self, value: Spread) -> str:
        low, high = (value.high, value.low) if self.rate else (value.low, value.high)
        short = Unit("", self.scale, self.rate)
        return f"{self.text(value.median)} ({short.text(low).strip()}-{short.text(high).strip()})"


@dataclass(frozen=True)
class Figure:
    """A figure that is measured.

    Arguments:
        key: its name in the output.
        title: its name in the table.
        unit: how it is formatted.
        counts: number of tasks or calls per round, by system.
        targets: what raycelery must reach.
        rounds: most rounds.
    """

    key: str
    title: str
    unit: Unit
    counts: Mapping[str, int]
    targets: tuple[Faster | AtMost, ...]
    rounds: int = 1000


_ALL = (OURS, CELERY, TASKS, ACTORS)
FIGURES = {
    figure.key: figure
    for figure in (
        Figure(
            "start", "import to first result less ray.init, fresh process", Unit("s"), {OURS: 1, ACTORS: 1},
            (AtMost(0.7, more_than=ACTORS),),
        ),
        Figure(
            "throughput", "no-ops, end to end", Unit("/s", rate=True),
            {OURS: 10_000, CELERY: 2_000, TASKS: 5_000, ACTORS: 10_000}, (Faster(CELERY, 10), Faster(TASKS, 3)),
        ),
        Figure(
            "round_trip", "one no-op and its result, p50", Unit("ms", 1e3), dict.fromkeys(_ALL, 300),
            (Faster(TASKS, 1), Faster(CELERY, 1 / 0.7)),
        ),
        Figure("burst", "caller's time per delay()", Unit("µs", 1e6), dict.fromkeys(_ALL, 1_000), (AtMost(80e-6),)),
        Figure(
            "chord", "chord of 1,000", Unit("s"), {OURS: 1_000, CELERY: 1_000, TASKS: 1_000}, (Faster(CELERY, 3),),
        ),
        Figure(
            # Celery takes a third of a second for each, so ten must do.
            "frames", "task with the same 20 MB frame, of 100", Unit("ms", 1e3), {OURS: 100, CELERY: 10, TASKS: 100},
            (Faster(CELERY, 20),),
        ),
        Figure("memory", "dispatcher's memory per queued no-op", Unit("bytes"), {OURS: 200_000}, (AtMost(2_000),), 1),
    )
}  # fmt: skip


@dataclass
class Board:
    """All measurements of this run."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)

    def outcomes(self, key: str) -> Iterator[tuple[Faster | AtMost, Spread, bool]]:
        """Yield each target of a figure, what was reached, and whether it was met."""
        for target in FIGURES[key].targets:
            value = target.value(self.samples[key])
            yield target, value, target.met(value)

    def missed(self) -> list[str]:
        """Return the figures with a target that was not met."""
        return [key for key in self.samples if not all(met for _, _, met in self.outcomes(key))]

    def table(self) -> Table:
        """Return the table of all figures: medians, and the lowest and highest round in brackets."""
        table = Table(title="median (min-max) over the rounds; ratios are of neighbouring rounds", title_justify="left")
        for column in ("figure", *_ALL, "reached", "target", "met"):
            table.add_column(column, justify="right" if column in _ALL else "left", overflow="fold")
        for key, samples in self.samples.items():
            figure = FIGURES[key]
            cells = []
            for system in _ALL:
                numbers = samples.get(system)
                cells.append(figure.unit.spread(Spread.of(numbers)).replace(" (", "\n(") if numbers else "")
            reached, wanted, to_settle = [], [], []
            for target, value, met in self.outcomes(key):
                words, bound = target.words(value, figure.unit)
                reached.append(words)
                wanted.append(bound)
                to_settle.append("[green]yes[/green]" if met else "[bold red]no[/bold red]")
            table.add_row(
                figure.title, *cells, "\n".join(reached), "\n".join(wanted), "\n".join(to_settle), end_section=True
            )
        return table

    def notes(self) -> list[str]:
        """Return remarks on the run for the report."""
        counts = "; ".join(
            f"{key}: " + ", ".join(f"{system} {count:,}" for system, count in counts.items())
            for key, counts in self.counts.items()
        )
        before, after = self.load_before[0], os.getloadavg()[0]
        return [
            f"tasks or calls per round: {counts}",
            f"{os.cpu_count()} CPUs; load average {before:.1f} at the start, {after:.1f} at the end "
            "(the run itself makes about 2)",
        ]

    def report(self) -> dict[str, Any]:
        """Return everything that was measured, samples included, as plain JSON data."""
        return {
            "machine": {
                "cpus": os.cpu_count(),
                "processor": _processor(),
                "system": platform.platform(),
                "python": platform.python_version(),
                "versions": {name: version(name) for name in ("celery", "ray", "redis", "pandas")},
                "load_before": self.load_before,
                "load_after": os.getloadavg(),
            },
            "figures": {
                key: {
                    "title": FIGURES[key].title,
                    "sample": "bytes" if key == "memory" else "seconds",
                    "counts": self.counts.get(key, {}),
                    "samples": samples,
                    "targets": [
                        {
                            "target": " ".join(target.words(value, FIGURES[key].unit)),
                            "median": value.median, "low": value.low, "high": value.high, "met": met,
                        }
                        for target, value, met in self.outcomes(key)
                    ],
                }
                for key, samples in self.samples.items()
            },
        }  # fmt: skip


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
