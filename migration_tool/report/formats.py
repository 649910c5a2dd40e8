"""A check's findings as JSON and as GitHub annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..model import Finding, Outcome, Verdict
from .summary import summarise

#: Names of the verdicts in reports.
WORDS = {Verdict.WORKS: "works", Verdict.CHANGES: "works, changes", Verdict.MANUAL: "by hand"}


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return the findings as JSON: ``{"findings": [...], "skipped": [...], "summary": {...}}``."""
    document = {
        "findings": [finding.as_dict() for outcome in outcomes for finding in outcome.findings],
        "skipped": [{"path": str(one.path), "reason": one.error} for one in outcomes if one.error is not None],
        "summary": summarise(outcomes).as_dict(),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_github(outcomes: Sequence[Outcome]) -> str:
    """Return GitHub workflow commands: annotations for all findings but those that work unchanged."""
    levels = {Verdict.CHANGES: "notice", Verdict.MANUAL: "warning"}
    lines = []
    for outcome in outcomes:
        if outcome.error is not None:
            lines.append(f"::error file={_property(str(outcome.path))}::{_data(outcome.error)}")
        for one in outcome.findings:
            if one.verdict in levels:
                where = f"file={_property(one.path)},line={one.line},col={one.column}"
                title = _property(f"{one.kind} {one.name}: {WORDS[one.verdict]}")
                lines.append(f"::{levels[one.verdict]} {where},title={title}::{_data(text(one))}")
    lines.append(f"::notice title=raycelery-migrate::{_data(str(summarise(outcomes)))}")
    return "\n".join(lines)


def text(one: Finding) -> str:
    """Return a finding's message and remedy in one line."""
    said = "; ".join(part for part in (one.message, one.instead) if part)
    return said or WORDS[one.verdict]


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
