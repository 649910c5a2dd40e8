"""Edits that insert whole lines: definitions and comments."""

from __future__ import annotations

import libcst as cst

from ..project.edits import Edit
from ..project.view import View

#: Every comment that this tool writes begins so.
MARK = "# raycelery-migrate:"
#: Order of insertions at one place: imports first; comments last, directly above the code they are about.
IMPORTS, DEFINITIONS, COMMENTS = -1, 0, 1


def after(view: View, node: cst.FunctionDef | cst.ClassDef, lines: list[str]) -> Edit:
    """Insert top-level lines after a definition."""
    last: cst.CSTNode = node
    while isinstance(last, cst.BaseCompoundStatement):
        last = _last(last)
    _, end = view.span(last)
    at = view.line_end(max(end - 1, 0))
    newline = view.newline
    text = newline * 2 + newline.join(line.replace("\n", newline) for line in lines) + newline
    text = text if view.raw[:at].endswith((b"\n", b"\r")) else newline + text
    return Edit(at, at, text, DEFINITIONS)


def _last(node: cst.BaseCompoundStatement) -> cst.CSTNode:
    """Return the last statement of the last clause of a compound statement."""
    body: cst.BaseSuite
    match node:
        case cst.Match():
            body = node.cases[-1].body
        case cst.Try() | cst.TryStar():
            body = (node.finalbody or node.orelse or [node, *node.handlers][-1]).body
        case cst.If():
            clause: cst.If | cst.Else = node
            while isinstance(clause, cst.If) and clause.orelse is not None:
                clause = clause.orelse
            body = clause.body
        case cst.For() | cst.While():
            body = (node.orelse or node).body
        case _:
            body = node.body
    return body.body[-1]


def comment(view: View, at: int, text: str) -> Edit:
    """Insert a comment line above the line of a byte offset."""
    start = view.line_start(at)
    return Edit(start, start, f"{view.indentation(at)}{MARK} {text}{view.newline}", COMMENTS)


def has_comment(view: View, at: int) -> bool:
    """Return whether the line above that of a byte offset is a comment of this tool."""
    start = view.line_start(at)
    previous = view.raw[view.line_start(max(start - 1, 0)) : start]
    return MARK.encode() in previous
