"""Compares two reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raycelery.terminal.tables import Table, name, number

from ..figures import Spread
from .document import ratio_text, rows, spread_text


@dataclass(frozen=True)
class Change:
    """One figure of one system in two reports.

    Arguments:
        workload: its name.
        system: its name.
        title: the figure's title.
        before: its value in the first report, formatted.
        after: its value in the second.
        better: how many times better the second is; below 1 it is worse.
        clear: whether the ranges of the two do not overlap.
        relative: whether the ratio to the base system is compared, so that a slower machine is no regression.
    """

    workload: str
    system: str
    title: str
    before: str
    after: str
    better: float
    clear: bool
    relative: bool

    def regressed(self, most: float) -> bool:
        """Return whether it became worse by more than this share, and by more than the rounds differ."""
        return self.clear and self.better < 1 - most


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Compare all figures that both reports have.

    Where there is a base system, the ratios to it are compared, otherwise the figures themselves.
    """
    found = []
    earlier = {trial["workload"]: trial for trial in before["trials"]}
    for trial in after["trials"]:
        old = earlier.get(trial["workload"])
        if old is None:
            continue
        old_rows = {row.name: row for row in rows(old)}
        same_base = old["systems"][0] == trial["systems"][0]
        for row in rows(trial):
            if row.name not in old_rows or row.figure.lower is None:
                continue
            for system, cell in row.cells.items():
                was = old_rows[row.name].cells.get(system)
                if was is None or was.value is None or cell.value is None:
                    continue
                if same_base and was.ratio and cell.ratio:
                    change = _judge(was.ratio, cell.ratio, lower=False), ratio_text(was.ratio), ratio_text(cell.ratio)
                    relative = True
                elif len(trial["systems"]) == 1 or system != trial["systems"][0]:
                    unit = row.figure.unit
                    judged = _judge(was.value, cell.value, lower=row.figure.lower)
                    change = judged, spread_text(was.value, unit), spread_text(cell.value, unit)
                    relative = False
                else:
                    continue  # the base system itself changes only with the machine
                (better, clear), then, now = change
                if better is not None:
                    found.append(
                        Change(trial["workload"], system, row.figure.title, then, now, better, clear, relative)
                    )
    return found


def _judge(before: Spread, after: Spread, *, lower: bool) -> tuple[float | None, bool]:
    """Return how many times better it became, and whether the ranges do not overlap; None if a value is 0."""
    apart = after.low > before.high or after.high < before.low
    if not before.median or not after.median:
        return None, apart
    gain = after.median / before.median
    return (1 / gain if lower else gain), apart


def table(found: list[Change], most: float) -> Table:
    """Return the changes as a table."""
    shown = Table("", ("workload", "system", "figure", "before>", "after>", "change>"))
    for change in found:
        style = "red" if change.regressed(most) else "green" if change.clear and change.better > 1 + most else ""
        text = f"{change.better - 1:+.0%}"
        names = (name(one, style) for one in (change.workload, change.system, change.title))
        shown.add(*names, *(number(one, style) for one in (change.before, change.after, text)))
    return shown
