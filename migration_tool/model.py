"""Findings about a file, and the outcome of a command for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path


class Verdict(str, Enum):
    """What becomes of a use of Celery."""

    WORKS = "works"
    CHANGES = "changes"
    MANUAL = "manual"


@dataclass(frozen=True, order=True)
class Finding:
    """One use of Celery, or one thing that a command has to say about a file.

    Arguments:
        path: path of the file, relative to the current folder where possible.
        line, column: from 1; in a notebook, ``cell`` is its number from 1 and the line is in the cell.
        kind: "import", "app", "task", "call", "canvas", "option", "setting", "worker", "dependency"...
        name: what is used.
        verdict: what becomes of it.
        message: how it changes, or why it must be changed by hand.
        instead: what to do, for work by hand.
    """

    path: str
    line: int
    column: int
    kind: str
    name: str
    verdict: Verdict
    message: str = ""
    instead: str = ""
    cell: int | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as a dictionary for JSON."""
        return {**asdict(self), "verdict": self.verdict.value}

    @property
    def place(self) -> str:
        """Its place as ``path:line:column``, which editors understand."""
        cell = f":cell {self.cell}" if self.cell is not None else ""
        return f"{self.path}{cell}:{self.line}:{self.column}"


@dataclass
class Outcome:
    """The outcome of a command for one file.

    Arguments:
        path: the file.
        before: its content.
        after: its new content; None if nothing changes.
        findings: what is reported about it.
        error: why it was skipped.
        diff: name, old text and new text of each changed part: the file, or one per notebook cell.
        creates: the file is new.
    """

    path: Path
    before: bytes = b""
    after: bytes | None = None
    findings: list[Finding] = field(default_factory=list)
    error: str | None = None
    diff: list[tuple[str, str, str]] = field(default_factory=list)
    creates: bool = False
