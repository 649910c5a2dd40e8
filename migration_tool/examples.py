"""Examples of what a rule does: they are its tests, and the page of rules is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """A file before and after a command.

    Arguments:
        before: its text.
        after: its text after the command; None if it stays as it is.
        file: its name.
        options: of the command line.
        beside: other files of the folder, by name, which stay as they are.
    """

    before: str
    after: str | None = None
    file: str = "tasks.py"
    options: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
