"""A notebook's code cells as one Python text, and edits of that text put back into the notebook."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ..errors import UnreadableFile

#: A magic or shell command of IPython; it is masked by replacing its first character by a hash sign.
_MAGIC = re.compile(r"^(?P<indent>[ \t]*)(?P<first>[%!?])(?P<rest>.*)$", re.M)
_ASSIGNED = re.compile(r"^[ \t]*[\w.,\[\] ]+=[ \t]*[%!]", re.M)
_SEPARATOR = "\n"


@dataclass(frozen=True)
class Cell:
    """A code cell: its number in the notebook from 1, and where it is in the joined text (in characters)."""

    number: int
    index: int
    start: int
    end: int
    source: str


class Notebook:
    """A notebook's code.

    Arguments:
        content: the file's text.
        path: for error messages.

    Raises:
        UnreadableFile: it is no notebook of format 4.
    """

    def __init__(self, content: str, path: str) -> None:
        try:
            self.document: dict[str, Any] = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UnreadableFile(f"{path}: it is not a notebook: {error}") from error
        cells = self.document.get("cells") if isinstance(self.document, dict) else None
        if not isinstance(cells, list) or not all(_is_cell(one) for one in cells):
            raise UnreadableFile(f"{path}: it is not a notebook of format 4; open it in Jupyter and save it")
        self.content, self.path = content, path
        self.cells: list[Cell] = []
        parts: list[str] = []
        at = 0
        for index, cell in enumerate(cells):
            if cell.get("cell_type") != "code":
                continue
            source = cell.get("source", "")
            source = "".join(source) if isinstance(source, list) else source
            text = masked(source)
            self.cells.append(Cell(len(self.cells) + 1, index, at, at + len(text), source))
            parts.append(text + _SEPARATOR)
            at += len(text) + len(_SEPARATOR)
        self.python = "".join(parts)

    @property
    def magics(self) -> str:
        """The lines that IPython reads and Python does not, but for those that ask for help."""
        lines = []
        for cell in self.cells:
            before, after = cell.source.split("\n"), masked(cell.source).split("\n")
            lines += [line.strip() for line, other in zip(before, after, strict=True) if line != other]
        return "\n".join(line for line in lines if not line.startswith("?") and not line.endswith("?"))

    def place(self, line: int) -> tuple[int, int]:
        """Return the number of the cell, and the line in that cell, of a line of the joined text; all from 1."""
        first = 1
        for cell in self.cells:
            lines = cell.source.count("\n") + 1
            if line < first + lines:
                return cell.number, line - first + 1
            first += lines
        return len(self.cells), line

    def replaced(self, changes: dict[int, str]) -> str:
        """Return the file's text with the sources of some cells replaced.

        Arguments:
            changes: new sources by position in the notebook.

        Raises:
            UnreadableFile: its JSON is laid out so that a cell cannot be replaced without touching others.
        """
        layout = self._layout()
        for index, source in changes.items():
            cell = self.document["cells"][index]
            cell["source"] = source.splitlines(keepends=True) if isinstance(cell["source"], list) else source
        text: str = layout(self.document)
        return text

    def _layout(self) -> Any:
        """Return a function that serialises the document as the file is: the JSON layout that reproduces its text."""
        stripped = self.content.rstrip("\r\n ")
        tail = self.content[len(stripped) :]
        for indent in (1, 2, 4, None, 0, 3, "\t"):
            for ascii_only in (False, True):
                for separators in (None, (",", ":")) if indent is None else (None,):

                    def write(
                        document: Any, indent: Any = indent, ascii_only: bool = ascii_only, separators: Any = separators
                    ) -> str:
                        text = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators)
                        return (text if "\r\n" not in self.content else text.replace("\n", "\r\n")) + tail

                    if write(self.document) == self.content:
                        return write
        raise UnreadableFile(f"{self.path}: its JSON is not laid out as notebooks are; save it once in Jupyter")


def _is_cell(cell: object) -> bool:
    """Return whether an object is a cell whose source is a string or a list of strings."""
    source = cell.get("source", "") if isinstance(cell, dict) else None
    return isinstance(source, str) or (isinstance(source, list) and all(isinstance(line, str) for line in source))


def masked(source: str) -> str:
    """Return a cell's source with magics turned into comments, of the same length in bytes and characters."""
    if source.lstrip().startswith("%%"):
        return re.sub(r"^.", "#", source, flags=re.M)
    if _ASSIGNED.search(source):
        source = re.sub(r"^([ \t]*)([\w])(.*=[ \t]*[%!].*)$", r"\1#\3", source, flags=re.M)
    lines = []
    for line in source.split("\n"):
        magic = _MAGIC.match(line)
        if magic is None and line.endswith("?") and not line.lstrip().startswith("#"):
            magic = re.match(r"^(?P<indent>[ \t]*)(?P<first>.)(?P<rest>.*)$", line)
        lines.append(f"{magic['indent']}#{magic['rest']}" if magic is not None else line)
    return "\n".join(lines)
