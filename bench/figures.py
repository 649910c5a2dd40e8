"""Computes figures of turns, their spread over several rounds, and ratios between systems."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Turn = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One number of a turn.

    Arguments:
        title: its name in tables.
        unit: "s", "bytes", "%", "/s", "x" for a ratio, or "" for a count.
        of: computes it from a turn; returns None if the turn has no such number.
        lower: whether lower is better; None if neither is.
    """

    title: str
    unit: str
    of: Callable[[Turn], float | None]
    lower: bool | None = True


@dataclass(frozen=True)
class Spread:
    """The median, lowest and highest of some values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one value."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which this share of the values lies, by the nearest rank; None if there are none."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, max(0, round(share * len(values) + 0.5) - 1))]


def makespan(turn: Turn) -> float:
    """Return the seconds from the first submission to the last result."""
    return float(turn["ended"] - turn["began"])


def queueing(turn: Turn, group: str | None = None) -> list[float]:
    """Return the seconds from submission to start of each task, or of each in a group."""
    calls = turn["calls"]
    return [
        started - submitted
        for name, submitted, started in zip(calls["group"], calls["submitted"], calls["started"], strict=True)
        if started is not None and group in (None, name)
    ]


def latency(turn: Turn) -> list[float]:
    """Return the seconds from submission until the caller has the result, of each task."""
    calls = turn["calls"]
    return [t - s for s, t in zip(calls["submitted"], calls["taken"], strict=True) if t is not None]


def cpu_seconds(turn: Turn) -> float | None:
    """Return the CPU seconds used by the system's processes and the caller."""
    used = turn["usage"]["cpu"]
    return float(used[-1]) if used else None


def utilisation(turn: Turn) -> float | None:
    """Return the percent of the machine's CPU time that the benchmark used."""
    usage = turn["usage"]
    if len(usage["time"]) < 2:
        return None
    return float(100 * usage["cpu"][-1] / (usage["time"][-1] - usage["time"][0]) / turn["cpus"])


def others(turn: Turn) -> float | None:
    """Return the percent of the machine's CPU time that other programs used."""
    usage = turn["usage"]
    if len(usage["time"]) < 2:
        return None
    used = max(0.0, usage["machine"][-1] - usage["cpu"][-1])
    return float(100 * used / (usage["time"][-1] - usage["time"][0]) / turn["cpus"])


def concurrency(turn: Turn) -> float | None:
    """Return the largest number of tasks that ran at the same time."""
    edges = [(moment, 1) for moment in turn["calls"]["started"] if moment is not None]
    edges += [(moment, -1) for moment in turn["calls"]["ended"] if moment is not None]
    most = now = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most or None


def queue_length(turn: Turn, points: int = 200) -> tuple[list[float], list[int]]:
    """Return how many tasks were submitted but not started, at ``points`` moments: times and counts."""
    calls = turn["calls"]
    edges = sorted(
        [(moment, 1) for moment in calls["submitted"]]
        + [(moment, -1) for moment in calls["started"] if moment is not None]
    )
    step = makespan(turn) / points
    times, counts, now, position = [], [], 0, 0
    for number in range(points + 1):
        while position < len(edges) and edges[position][0] <= number * step:
            now += edges[position][1]
            position += 1
        times.append(round(number * step, 4))
        counts.append(now)
    return times, counts


def _per_call(value: float | None, turn: Turn) -> float | None:
    return None if value is None else value / max(1, len(turn["calls"]["submitted"]))


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _peak(turn: Turn) -> float | None:
    return max(turn["usage"]["memory"], default=None)


def _throughput(turn: Turn) -> float:
    return sum(error is None for error in turn["calls"]["error"]) / makespan(turn)


FIGURES: dict[str, Figure] = {
    "makespan": Figure("makespan", "s", makespan),
    "seconds_per_task": Figure("makespan per task", "s", lambda turn: _per_call(makespan(turn), turn)),
    "throughput": Figure("tasks per second", "/s", _throughput, lower=False),
    "utilisation": Figure("CPU utilisation", "%", utilisation, lower=False),
    "others": Figure("CPU used by others", "%", others, lower=None),
    "cpu_per_task": Figure("CPU seconds per task", "s", lambda turn: _per_call(cpu_seconds(turn), turn)),
    "calling": Figure("caller's time per call", "s", lambda turn: _median(turn["calls"]["calling"])),
    "memory": Figure("peak memory", "bytes", _peak),
    "concurrency": Figure("tasks at once", "", concurrency, lower=None),
    "socket_bytes": Figure("bytes over sockets per task", "bytes", lambda turn: _per_call(turn["socket_bytes"], turn)),
    "start": Figure("start and warm-up", "s", lambda turn: float(turn["start_seconds"])),
    "latency_p50": Figure("round trip p50", "s", lambda turn: quantile(latency(turn), 0.5)),
    "latency_p95": Figure("round trip p95", "s", lambda turn: quantile(latency(turn), 0.95)),
    "latency_p99": Figure("round trip p99", "s", lambda turn: quantile(latency(turn), 0.99)),
    "queueing_p50": Figure("queueing p50", "s", lambda turn: quantile(queueing(turn), 0.5)),
    "queueing_p95": Figure("queueing p95", "s", lambda turn: quantile(queueing(turn), 0.95)),
    "queueing_max": Figure("queueing longest", "s", lambda turn: quantile(queueing(turn), 1.0)),
}


def figure(name: str) -> Figure:
    """Return a figure by name.

    Arguments:
        name: one of `FIGURES`, or ``"queueing_p95:small"`` for the calls of a group, or ``"own:lost:tasks lost:"`` for
            one that the workload computes itself: its key, title, unit, and optionally whether more is better ("+").
    """
    if name in FIGURES:
        return FIGURES[name]
    kind, _, rest = name.partition(":")
    if kind == "own":
        key, title, unit, *better = rest.split(":")
        return Figure(title, unit, lambda turn: turn["own"].get(key), lower="+" not in better)
    share = {"queueing_p50": 0.5, "queueing_p95": 0.95, "queueing_max": 1.0}[kind]
    return Figure(f"{FIGURES[kind].title}, {rest}", "s", lambda turn: quantile(queueing(turn, rest), share))


def values(turns: Sequence[Turn], system: str, name: str) -> list[float]:
    """Return a figure of each of a system's turns, in the order of the rounds."""
    of = figure(name).of
    found = [of(turn) for turn in turns if turn["system"] == system]
    return [value for value in found if value is not None]


def ratio(turns: Sequence[Turn], name: str, system: str, base: str) -> Spread | None:
    """Return how many times better ``system`` is than ``base``, by pairs of rounds; None if they cannot be compared."""
    lower = figure(name).lower
    ours, theirs = values(turns, system, name), values(turns, base, name)
    if lower is None or not ours or len(ours) != len(theirs) or not all(ours) or not all(theirs):
        return None
    pairs = zip(ours, theirs, strict=True)
    return Spread.of(b / a if lower else a / b for a, b in pairs)


def show(value: float, unit: str) -> str:
    """Format a number with its unit, scaled to be readable."""
    if unit == "bytes":
        for prefix in ("", "k", "M", "G"):
            if abs(value) < 1000 or prefix == "G":
                return f"{value:.3g} {prefix}B" if abs(value) < 1000 else f"{value:,.0f} {prefix}B"
            value /= 1000
    if unit == "s":
        for factor, small in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if abs(value) * factor >= 1 or small == "µs":
                return f"{plain(value * factor)} {small}"
    return f"{plain(value)}{'' if unit in ('', 'x', '/s') else ' '}{unit}"


def plain(value: float) -> str:
    """Format a number with three significant digits, or all those before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
