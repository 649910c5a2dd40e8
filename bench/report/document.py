"""The report as data: written to ``report.json``, and shown by the tables and the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import figures, workloads
from ..figures import Spread
from ..measure import Trial

#: Version of the format; raised when older readers would misread the file.
FORMAT = 1


#: Figures that are shown for every workload, as they tell how busy the machine was otherwise.
ALWAYS = ("others",)
#: Percent of the machine's CPU time used by other programs above which a warning is shown.
BUSY_PERCENT = 15


@dataclass(frozen=True)
class Cell:
    """A figure of one system: its spread over the rounds, and how many times better it is than the base system's."""

    value: Spread | None
    ratio: Spread | None


@dataclass(frozen=True)
class Row:
    """A row of a table: one figure of all systems."""

    name: str
    figure: figures.Figure
    cells: dict[str, Cell]


def document(
    trials: Sequence[Trial], machine: dict[str, Any], command: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the report as JSON, with every raw sample."""
    return {
        "format": FORMAT,
        "command": command,
        "settings": settings,
        "machine": machine,
        "trials": [
            {
                **asdict(trial),
                "about": workloads.load(trial.workload).about,
                "figures": list(workloads.load(trial.workload).figures),
            }
            for trial in trials
        ],
    }


def read(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        ValueError: the file is not a report, or has another format version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a report: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path} is no report of format {FORMAT}: make it again with 'raycelery bench'")
    return found


def rows(trial: dict[str, Any]) -> list[Row]:
    """Return the rows of a workload's table; none if its systems cannot be compared."""
    if trial["problem"]:
        return []
    turns, systems = trial["turns"], trial["systems"]
    table = []
    for name in [*trial["figures"], *ALWAYS]:
        cells = {}
        for system in systems:
            values = figures.values(turns, system, name)
            ratio = figures.ratio(turns, name, system, systems[0]) if system != systems[0] else None
            cells[system] = Cell(Spread.of(values) if values else None, ratio)
        if any(cell.value for cell in cells.values()):
            table.append(Row(name, figures.figure(name), cells))
    return table


def busy(trial: dict[str, Any]) -> str | None:
    """Return a warning if other programs used so much CPU time that the figures are unreliable; None if not.

    Turns follow each other, so a program that runs only during one of them looks like a difference.
    """
    shares = {
        system: max(found)
        for system in trial["systems"]
        if (found := [share for turn in trial["turns"] if turn["system"] == system
                      if (share := figures.others(turn)) is not None])
    }  # fmt: skip
    if not shares or max(shares.values()) <= BUSY_PERCENT:
        return None
    told = ", ".join(f"{share:.0f} % during {system}" for system, share in shares.items())
    return f"of its CPUs others used up to {told}: believe no ratio of this, and measure again when it is quiet"


def parts(spread: Spread | None, unit: str) -> tuple[str, str]:
    """Format a median, and "lowest to highest" if there is more than one value."""
    if spread is None:
        return "-", ""
    median = figures.show(spread.median, unit)
    if spread.low == spread.high:
        return median, ""
    return median, f"{figures.show(spread.low, unit)} to {figures.show(spread.high, unit)}"


def spread_text(spread: Spread | None, unit: str) -> str:
    """Format a median with the lowest and highest value."""
    median, reach = parts(spread, unit)
    return f"{median} ({reach})" if reach else median


def ratio_text(ratio: Spread | None) -> str:
    """Format a ratio with the lowest and highest value."""
    return "" if ratio is None else spread_text(ratio, "x")
