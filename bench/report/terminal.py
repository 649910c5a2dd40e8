"""Tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from raycelery.terminal.tables import Cell, Table, number

from ..figures import Spread
from .document import parts, rows


def table(trial: dict[str, Any]) -> RenderableType:
    """Return a workload's table: a row per figure, with ratios to the first system below the figures."""
    base = trial["systems"][0]
    shown = Table("", ("figure", *(f"{system}>" for system in trial["systems"])))
    for row in rows(trial):
        shown.add(
            number(row.figure.title),
            *(number(_lines(row.cells[one].value, row.figure.unit)) for one in trial["systems"]),
        )
        if any(row.cells[system].ratio for system in trial["systems"]):
            shown.add(number(""), *(_ratio(row.cells[system].ratio) for system in trial["systems"]))
    about = Text.assemble((trial["workload"], "bold"), f": {trial['about']}")
    told = [Text(f"6x: six times better than {base}, round by round; in brackets lowest and highest", "dim")]
    return Group(about, shown, *(told if len(trial["systems"]) > 1 else []))


def _lines(spread: Spread | None, unit: str) -> str:
    median, reach = parts(spread, unit)
    return f"{median}\n({reach})" if reach else median


def _ratio(ratio: Spread | None) -> Cell:
    if ratio is None:
        return number("")
    style = "bold" if ratio.low <= 1 <= ratio.high else "bold green" if ratio.median > 1 else "bold red"
    return number(_lines(ratio, "x"), style)
