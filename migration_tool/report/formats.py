"""A check's findings as JSON, as GitHub annotations, as a page."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from migration_tool.model import Finding, Outcome, Verdict
from migration_tool.report.summary import summarise

_WORDS = {Verdict.WORKS: "works", Verdict.CHANGES: "works, changes", Verdict.MANUAL: "by hand"}


def as_json(outcomes: Sequence[Outcome]) -> str:
    """``{"findings": [...], "skipped": [...], "summary": {...}}``."""
    document = {
        "findings": [finding.as_dict() for outcome in outcomes for finding in outcome.findings],
        "skipped": [{"path": str(one.path), "reason": one.error} for one in outcomes if one.error is not None],
        "summary": summarise(outcomes).as_dict(),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_github(outcomes: Sequence[Outcome]) -> str:
    """Workflow commands that GitHub shows beside the lines of a pull request; what works as it is has none."""
    levels = {Verdict.CHANGES: "notice", Verdict.MANUAL: "warning"}
    lines = []
    for outcome in outcomes:
        if outcome.error is not None:
            lines.append(f"::error file={_property(str(outcome.path))}::{_data(outcome.error)}")
        for one in outcome.findings:
            if one.verdict in levels:
                where = f"file={_property(one.path)},line={one.line},col={one.column}"
                title = _property(f"{one.kind} {one.name}: {_WORDS[one.verdict]}")
                lines.append(f"::{levels[one.verdict]} {where},title={title}::{_data(text(one))}")
    lines.append(f"::notice title=raycelery-migrate::{_data(str(summarise(outcomes)))}")
    return "\n".join(lines)


def text(one: Finding) -> str:
    """What is said about a use, in one line."""
    said = "; ".join(part for part in (one.message, one.instead) if part)
    return said or _WORDS[one.verdict]


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
body { color: #1a1a1a; background: #fff } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
code { font-size: .9em } .manual { color: #a40000; font-weight: 600 }
.changes { color: #8a5a00 }
.works { color: #0a6a2a } h2 { margin-top: 2rem; font-size: 1.05rem }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } td, th { border-color: #333 }
.manual { color: #ff8a80 } .changes { color: #ffcc80 } .works { color: #a5d6a7 } }
"""


def as_html(outcomes: Sequence[Outcome]) -> str:
    """One page that needs nothing else."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>raycelery-migrate check</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>raycelery-migrate check</h1><p>{html.escape(str(summarise(outcomes)))}</p>",
    ]
    for outcome in outcomes:
        if outcome.error is not None:
            parts.append(f"<h2>{html.escape(str(outcome.path))}</h2><p class='manual'>{html.escape(outcome.error)}</p>")
        elif outcome.findings:
            parts.append(f"<h2>{html.escape(str(outcome.path))}</h2><table><tr><th>line<th>use<th>verdict<th>what</tr>")
            for one in outcome.findings:
                place = f"cell {one.cell}, {one.line}" if one.cell is not None else str(one.line)
                parts.append(
                    f"<tr><td>{place}<td>{html.escape(one.kind)} <code>{html.escape(one.name)}</code>"
                    f"<td class='{one.verdict.value}'>{_WORDS[one.verdict]}<td>{html.escape(text(one))}</tr>"
                )
            parts.append("</table>")
    return "\n".join([*parts, "</body></html>"])
