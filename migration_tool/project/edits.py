"""Edits of a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A replacement of a part of a text, or an insertion.

    Arguments:
        start, end: offsets in bytes of the text's UTF-8 form; equal ones insert.
        text: what is to stand there.
        order: of several insertions at one place, the lower ones come first; equal ones as they were made.
    """

    start: int
    end: int
    text: str
    order: int = 0

    def is_inside(self, start: int, end: int) -> bool:
        """Return whether it changes bytes of a range; an insertion at the range's beginning or end does not."""
        if self.start == self.end:
            return start < self.start < end
        return start <= self.start and self.end <= end


def apply(text: str, edits: list[Edit]) -> str:
    """Apply edits to a text; equal ones are applied once.

    Raises:
        ValueError: two of them overlap.
    """
    raw = text.encode("utf-8", "surrogatepass")
    parts = []
    at = 0
    for edit in sorted(dict.fromkeys(edits), key=lambda one: (one.start, one.end, one.order)):
        if edit.start < at:
            raise ValueError(f"two changes meet at byte {edit.start}")
        parts += [raw[at : edit.start], edit.text.encode()]
        at = edit.end
    return b"".join([*parts, raw[at:]]).decode("utf-8", "surrogatepass")
