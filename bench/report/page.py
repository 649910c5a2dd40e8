"""Renders ``report.html``, a self-contained page that needs no network."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from .. import figures
from . import plots
from .document import busy, parts, rows


def render(report: dict[str, Any]) -> str:
    """Return the page of a report; every text in it is escaped."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    machine = report["machine"]
    trials = [_trial(trial) for trial in report["trials"]]
    text: str = environment.get_template("page.html.jinja").render(
        report=report,
        machine=machine,
        memory=figures.show(machine["memory"], "bytes"),
        versions=", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        trials=trials,
        colours=plots.COLOURS,
        script=get_plotlyjs() if any(trial["plots"] for trial in trials) else "",
    )
    return text


def _trial(trial: dict[str, Any]) -> dict[str, Any]:
    table = rows(trial)
    base, *others = trial["systems"]
    return {
        "name": trial["workload"],
        "about": trial["about"],
        "problem": trial["problem"],
        "busy": None if trial["problem"] else busy(trial),
        "base": base,
        "others": others,
        "rounds": max((turn["round"] for turn in trial["turns"]), default=-1) + 1,
        "fleets": {system: _fleet(trial, system) for system in trial["systems"]},
        "headline": _headline(table, base, others),
        "rows": [
            {
                "title": row.figure.title,
                "cells": [
                    {
                        "value": parts(row.cells[system].value, row.figure.unit),
                        "ratio": parts(row.cells[system].ratio, "x") if row.cells[system].ratio else None,
                        "good": _good(row.cells[system].ratio),
                    }
                    for system in trial["systems"]
                ],
            }
            for row in table
        ],
        "plots": plots.plots(trial, table) if table else [],
    }


def _headline(table: list[Any], base: str, others: list[str]) -> dict[str, str] | None:
    """Return the first figure of the table, of the base system and the others."""
    if not table or not others:
        return None
    row = table[0]
    before, after, ratio = row.cells[base].value, row.cells[others[0]].value, row.cells[others[0]].ratio
    if before is None or after is None or ratio is None:
        return None
    return {
        "title": row.figure.title,
        "before": figures.show(before.median, row.figure.unit),
        "after": figures.show(after.median, row.figure.unit),
        "ratio": f"{figures.plain(ratio.median)}x",
        "after_system": others[0],
    }


def _good(ratio: figures.Spread | None) -> str:
    if ratio is None or ratio.low <= 1 <= ratio.high:
        return ""
    return "better" if ratio.median > 1 else "worse"


def _fleet(trial: dict[str, Any], system: str) -> str:
    """Describe a system's workers, and how long its start took."""
    turns = [turn for turn in trial["turns"] if turn["system"] == system]
    if not turns:
        return "did not run"
    fleet = turns[0]["fleet"]
    seconds = statistics.median(turn["start_seconds"] for turn in turns)
    nodes = f" on {fleet['nodes']} nodes" if fleet["nodes"] > 1 else ""
    slots = "1 slot" if fleet["slots"] == 1 else f"{fleet['slots']} slots"
    return f"{slots}{nodes}, up and warm in {seconds:.0f} s"
