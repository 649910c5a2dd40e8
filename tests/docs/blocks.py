"""Finds the code blocks of a Markdown page that are to be run.

Above a block stands an HTML comment, which readers do not see:

    <!-- runs -->               the block, Python or bash, must run to its end with exit status 0
    <!-- file: tasks.py -->     the block is that file, for every block of the page that runs

Blocks without such a comment are left alone. A page's blocks do not depend on each other but through its files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARK = re.compile(r"^<!--\s*(?P<what>runs|file:\s*(?P<file>\S+))\s*-->$")
_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)\s*$")
_LANGUAGES = ("python", "bash")


@dataclass(frozen=True)
class Block:
    """One marked block.

    Arguments:
        line: where its code begins, counted from 1.
        language: what the fence says.
        code: the text between the fences.
        file: the path to write it to, for a file; None for a block that runs.
    """

    line: int
    language: str
    code: str
    file: str | None = None


def marked_blocks(text: str) -> list[Block]:
    """Return the marked blocks of a page.

    Raises:
        ValueError: a mark stands over no block, or over one in a language that cannot be run.
    """
    lines = text.splitlines()
    blocks = []
    number = 0
    while number < len(lines):
        mark = _MARK.match(lines[number].strip())
        fence = _FENCE.match(lines[number])
        if mark is not None:
            following = _FENCE.match(lines[number + 1]) if number + 1 < len(lines) else None
            if following is None:
                raise ValueError(f"line {number + 1}: {lines[number]} stands over no code block")
            if mark["file"] is None and following["language"] not in _LANGUAGES:
                raise ValueError(f"line {number + 1}: only {' and '.join(_LANGUAGES)} blocks can run")
            begin = number + 2
            end = _closing(lines, begin, following["fence"])
            code = "\n".join(lines[begin:end]) + "\n"
            blocks.append(Block(begin + 1, following["language"], code, mark["file"]))
            number = end
        elif fence is not None:
            number = _closing(lines, number + 1, fence["fence"])
        number += 1
    return blocks


def _closing(lines: list[str], begin: int, fence: str) -> int:
    for number in range(begin, len(lines)):
        if lines[number].rstrip() == fence:
            return number
    raise ValueError(f"line {begin}: the code block is not closed")
