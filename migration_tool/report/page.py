"""A check's findings as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..model import Finding, Outcome, Verdict
from .formats import WORDS, text
from .summary import summarise

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --paper: #fff; --line: #ddd; --dim: #666;
  --manual: #a40000; --changes: #7a5000; --works: #0a6a2a }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --paper: #161616; --line: #333; --dim: #999;
  --manual: #ff8a80; --changes: #ffcc80; --works: #a5d6a7 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: var(--text); background: var(--paper) }
h1 { font-size: 1.5rem } h2 { margin: 2rem 0 .3rem; font-size: 1.05rem; overflow-wrap: anywhere }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0 }
dt { color: var(--dim) } dd { margin: 0; font-size: 1.4rem } dl div { min-width: 5rem }
ul { list-style: none; margin: 0; padding: 0 }
li { display: grid; grid-template-columns: 6rem 19rem 8rem 1fr; gap: .1rem .8rem; padding: .3rem 0;
  border-bottom: 1px solid var(--line) }
li > * { overflow-wrap: anywhere } code { font-size: .9em }
.place, summary { color: var(--dim) } summary { cursor: pointer; padding: .3rem 0 }
.manual { color: var(--manual); font-weight: 600 } .changes { color: var(--changes) } .works { color: var(--works) }
@media (max-width: 50rem) { li { grid-template-columns: 1fr auto } .place, .what { grid-column: 1 / -1 } }
"""


def as_html(outcomes: Sequence[Outcome]) -> str:
    """Return the page; findings that work unchanged are folded."""
    summary = summarise(outcomes)
    figures = [("files", summary.files), ("with Celery", summary.with_celery), ("tasks", summary.tasks)]
    verdicts = [(Verdict.WORKS, summary.works), (Verdict.CHANGES, summary.changes), (Verdict.MANUAL, summary.manual)]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>raycelery-migrate check</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>',
        "<h1>raycelery-migrate check</h1><dl>",
        *(f"<div><dt>{name}<dd>{number}</div>" for name, number in figures),
        *(f'<div><dt>{WORDS[verdict]}<dd class="{verdict.value}">{number}</div>' for verdict, number in verdicts),
        *([f'<div><dt>could not be read<dd class="manual">{summary.skipped}</div>'] if summary.skipped else []),
        "</dl>",
    ]
    for outcome in outcomes:
        if outcome.error is not None:
            parts.append(f'<h2>{escape(str(outcome.path))}</h2><p class="manual">{escape(outcome.error)}</p>')
        elif outcome.findings:
            parts.append(f"<h2>{escape(str(outcome.path))}</h2>")
            parts += _list(one for one in outcome.findings if one.verdict is not Verdict.WORKS)
            works = [one for one in outcome.findings if one.verdict is Verdict.WORKS]
            if works:
                parts += [f"<details><summary>{len(works)} as they are</summary>", *_list(works), "</details>"]
    return "\n".join([*parts, "</body></html>"])


def _list(findings: Iterable[Finding]) -> list[str]:
    rows = []
    for one in findings:
        place = f"cell {one.cell}, line {one.line}" if one.cell is not None else f"line {one.line}"
        what = text(one) if one.message or one.instead else ""
        rows.append(
            f'<li><span class="place">{place}</span><span>{escape(one.kind)} <code>{escape(one.name)}</code></span>'
            f'<span class="{one.verdict.value}">{WORDS[one.verdict]}</span>'
            f'<span class="what">{escape(what)}</span></li>'
        )
    return ["<ul>", *rows, "</ul>"] if rows else []
