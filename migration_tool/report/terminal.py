"""A check's findings as tables on a terminal, and changes as a coloured diff."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..model import Outcome, Verdict
from .formats import WORDS, text
from .summary import Summary, summarise

#: Printed once, if a finding mentions direct mode.
DIRECT_MODE = (
    "Direct mode is what an application is in after the import is swapped: a call goes to Ray without a broker, and no "
    'Celery worker runs. Bridge mode (ray_mode = "bridge") keeps both, and the worker runs its tasks on Ray.'
)
_COLOURS = {Verdict.WORKS: "green", Verdict.CHANGES: "yellow", Verdict.MANUAL: "red"}


def show_check(console: Console, outcomes: Sequence[Outcome], everything: bool) -> None:
    """Print a table per file of what changes or must be changed by hand, and a summary.

    Arguments:
        everything: also list what works unchanged, which is only counted otherwise.
    """
    for outcome in outcomes:
        if outcome.error is not None or not outcome.findings:
            continue
        shown = [one for one in outcome.findings if everything or one.verdict is not Verdict.WORKS]
        silent = Counter(one.kind for one in outcome.findings if not everything and one.verdict is Verdict.WORKS)
        console.print(f"[bold]{escape(str(outcome.path))}[/]", highlight=False)
        if shown:
            table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=True)
            table.add_column(justify="right", style="dim", no_wrap=True)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            table.add_column(overflow="fold")
            for one in shown:
                place = f"{one.cell}:{one.line}" if one.cell is not None else str(one.line)
                colour = _COLOURS[one.verdict]
                table.add_row(
                    place, f"[{colour}]{WORDS[one.verdict]}[/]", f"{one.kind} {escape(one.name)}", escape(text(one))
                )
            console.print(table)
        if silent:
            kinds = ", ".join(f"{count} {kind}" for kind, count in silent.most_common())
            console.print(f"  [dim]works as it is: {escape(kinds)}[/]", highlight=False)
    if any("direct mode" in text(one) for outcome in outcomes for one in outcome.findings):
        console.print(f"\n{DIRECT_MODE}", style="dim", markup=False, highlight=False)
    summary = summarise(outcomes)
    console.print(f"\n{escape(str(summary))}", highlight=False)
    if summary.with_celery:
        console.print(_next(summary), markup=False, highlight=False)


def _next(summary: Summary) -> str:
    """Return what to do after a check."""
    if summary.manual:
        return "Next: do what is to be done by hand, then raycelery-migrate shim --write"
    return "Next: raycelery-migrate shim --write, and run the project's tests"


def diff_lines(outcome: Outcome) -> list[str]:
    """Return the lines of an outcome's unified diff, without line endings."""
    lines: list[str] = []
    for name, before, after in outcome.diff:
        old = "/dev/null" if outcome.creates else f"a/{name.lstrip('/')}"
        pairs = difflib.unified_diff(_lines(before), _lines(after), old, f"b/{name.lstrip('/')}")
        for line in pairs:
            lines.append(line.rstrip("\n"))
            if not line.endswith("\n"):
                lines.append("\\ No newline at end of file")
    return lines


def _lines(text: str) -> list[str]:
    """Split a text where ``patch`` and git do: other characters that end a line for Python are part of it."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def show_diff(console: Console, outcome: Outcome) -> None:
    """Print an outcome's diff, in colour where the console has any."""
    if not console.is_terminal:
        # To be applied: as it is, with characters that a terminal would act on.
        for line in diff_lines(outcome):
            console.file.write(f"{line}\n")
        return
    styles = (("+++", "bold"), ("---", "bold"), ("@@", "cyan"), ("+", "green"), ("-", "red"))
    for line in diff_lines(outcome):
        style = next((style for mark, style in styles if line.startswith(mark)), None)
        shown = line.removesuffix("\r")
        console.print(shown, style=style, markup=False, highlight=False, soft_wrap=True, emoji=False)
