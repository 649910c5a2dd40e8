"""Parses files, and applies edits to them."""

from __future__ import annotations

import ast
import warnings
from dataclasses import replace

import libcst as cst

from .errors import UnreadableFile
from .model import Finding, Outcome, Verdict
from .project.edits import Edit, apply
from .project.project import Project
from .project.view import View
from .workspace import Source


def view_of(source: Source, project: Project) -> View:
    """Parse a file with LibCST.

    Raises:
        UnreadableFile: LibCST cannot parse what Python can.
    """
    assert source.python is not None
    try:
        return View(source.python, source.key, source.package, project)
    except (cst.ParserSyntaxError, RecursionError, cst.CSTValidationError) as error:
        line = getattr(error, "raw_line", None)
        place = f":{line}" if line else ""
        raise UnreadableFile(f"{source.path}{place}: LibCST cannot parse it") from error


def finding(
    view: View,
    source: Source,
    node: cst.CSTNode,
    kind: str,
    name: str,
    verdict: Verdict,
    message: str = "",
    instead: str = "",
) -> Finding:
    """Return a finding at a node; the arguments are those of :class:`Finding`."""
    start, _ = view.span(node)
    return finding_at(view, source, start, kind, name, verdict, message, instead)


def finding_at(
    view: View, source: Source, start: int, kind: str, name: str, verdict: Verdict, message: str = "", instead: str = ""
) -> Finding:
    """Return a finding at a byte offset; the arguments are those of :class:`Finding`."""
    line, cell = view.line(start), None
    if source.notebook is not None:
        cell, line = source.notebook.place(line)
    return Finding(str(source.path), line, view.column(start), kind, name, verdict, message, instead, cell)


def parses(text: str) -> str | None:
    """Return why a text is not valid Python; None if it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError) as error:
            return f"line {getattr(error, 'lineno', '?')}: {getattr(error, 'msg', error)}"
    return None


def rewrite(source: Source, edits: list[Edit], outcome: Outcome) -> None:
    """Apply edits to a Python file or notebook, and put the result into its outcome.

    Raises:
        UnreadableFile: the result would not parse or cannot be encoded; the file stays as it is.
    """
    assert source.python is not None
    assert source.text is not None
    if not edits:
        return
    try:
        after = apply(source.python, edits)
    except ValueError as error:
        raise UnreadableFile(f"{source.path}: it is left as it was: {error}; please report this") from error
    if after == source.python:
        return
    wrong = parses(after)
    if wrong is not None:
        raise UnreadableFile(
            f"{source.path}: it is left as it was: the result would not parse ({wrong}); please report this"
        )
    if source.notebook is None:
        set_text(source, after, outcome)
        return
    notebook = source.notebook
    changes = {}
    raw = source.python.encode("utf-8", "surrogatepass")
    for cell in notebook.cells:
        start = len(source.python[: cell.start].encode("utf-8", "surrogatepass"))
        end = len(source.python[: cell.end].encode("utf-8", "surrogatepass"))
        inside = [edit for edit in dict.fromkeys(edits) if start <= edit.start and edit.end <= end]
        if not inside:
            continue
        # The text that was analysed has masked magics, the cell has not.
        masked_before = raw[start:end].decode("utf-8", "surrogatepass")
        moved = []
        for edit in inside:
            begin = len(raw[start : edit.start].decode("utf-8", "surrogatepass"))
            length = len(raw[edit.start : edit.end].decode("utf-8", "surrogatepass"))
            offset = len(cell.source[:begin].encode())
            stop = offset + len(cell.source[begin : begin + length].encode())
            moved.append(replace(edit, start=offset, end=stop))
        assert len(masked_before) == len(cell.source)
        changes[cell.index] = apply(cell.source, moved)
        outcome.diff.append((f"{source.path} (cell {cell.number})", cell.source, changes[cell.index]))
    text = notebook.replaced(changes)
    outcome.after = source.text.encode(text)


def set_text(source: Source, after: str, outcome: Outcome) -> None:
    """Encode a file's new text, and put it into its outcome.

    Raises:
        UnreadableFile: the file's encoding lacks a character of the text.
    """
    assert source.text is not None
    try:
        outcome.after = source.text.encode(after)
    except UnicodeEncodeError as error:
        raise UnreadableFile(f"{source.path}: its encoding {source.text.encoding} cannot hold the change") from error
    outcome.diff.append((str(source.path), source.text.content, after))
