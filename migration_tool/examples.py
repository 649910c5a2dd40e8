"""What a rule does, shown: its examples are its tests, and the page of rules is made of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """What becomes of a file.

    Arguments:
        before: its text.
        after: what it is then; None if it stays as it is.
        file: its name.
        options: of the command.
    """

    before: str
    after: str | None = None
    file: str = "tasks.py"
    options: tuple[str, ...] = ()
