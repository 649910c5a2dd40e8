"""Counts of a check's findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..model import Finding, Outcome, Verdict


@dataclass(frozen=True)
class Summary:
    """Counts over all files.

    Arguments:
        files: files that were read.
        with_celery: those that use Celery.
        tasks: task functions and classes.
        works, changes, manual: findings of each verdict.
        skipped: files that could not be read.
    """

    files: int
    with_celery: int
    tasks: int
    works: int
    changes: int
    manual: int
    skipped: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{count(self.files, 'file')}, {self.with_celery} with Celery, {count(self.tasks, 'task')}:"
            f" {self.works} uses work as they are,"
            f" {self.changes} work and change, {self.manual} must be changed by hand"
            + (f"; {count(self.skipped, 'file')} could not be read" if self.skipped else "")
        )


def count(number: int, thing: str) -> str:
    """Return a number with a noun in the singular or plural."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Return the counts of a command's outcomes."""
    findings: list[Finding] = [finding for outcome in outcomes for finding in outcome.findings]
    verdicts = Counter(finding.verdict for finding in findings)
    tasks = {(one.path, one.name) for one in findings if one.kind in ("task", "task class")}
    return Summary(
        len(outcomes),
        sum(bool(outcome.findings) for outcome in outcomes),
        len(tasks),
        verdicts[Verdict.WORKS],
        verdicts[Verdict.CHANGES],
        verdicts[Verdict.MANUAL],
        sum(outcome.error is not None for outcome in outcomes),
    )
