"""Tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from bench.figures import Spread
from bench.report.document import ratio_text, rows, spread_text


def table(trial: dict[str, Any]) -> Table:
    """Return a workload's table: a row per figure; under a system's figure how many times better than the first's."""
    base = trial["systems"][0]
    shown = Table(title=f"[bold]{trial['workload']}[/]: {escape(trial['about'])}", title_justify="left", title_style="")
    if len(trial["systems"]) > 1:
        shown.caption = f"6x: six times better than {base}, round by round; in brackets lowest and highest"
    shown.add_column("figure")
    for system in trial["systems"]:
        shown.add_column(system, justify="right")
    for row in rows(trial):
        cells = [row.figure.title]
        for system in trial["systems"]:
            cell = row.cells[system]
            lines = [spread_text(cell.value, row.figure.unit)]
            cells.append("\n".join(lines + ([_coloured(cell.ratio)] if cell.ratio else [])))
        shown.add_row(*cells, end_section=True)
    return shown


def _coloured(ratio: Spread) -> str:
    text = f"[bold]{ratio_text(ratio)}[/]"
    if ratio.low <= 1 <= ratio.high:
        return text
    return f"[green]{text}[/]" if ratio.median > 1 else f"[red]{text}[/]"
