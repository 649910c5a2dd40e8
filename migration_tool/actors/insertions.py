"""What is put between a file's lines: definitions after others, and comments."""

from __future__ import annotations

import libcst as cst

from ..project.edits import Edit
from ..project.view import View

#: What every comment of this tool begins with.
MARK = "# raycelery-migrate:"
#: Of what is put in one place: imports come first, comments stand right above what they are about.
IMPORTS, DEFINITIONS, COMMENTS = -1, 0, 1


def after(view: View, node: cst.FunctionDef | cst.ClassDef, lines: list[str]) -> Edit:
    """Put top-level lines after a definition."""
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
    """The last statement of a compound one, which is in the last of its clauses."""
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
    """A comment on a line of its own above the line that a byte is in."""
    start = view.line_start(at)
    return Edit(start, start, f"{view.indentation(at)}{MARK} {text}{view.newline}", COMMENTS)


def has_comment(view: View, at: int) -> bool:
    """Whether such a comment stands above the line that a byte is in."""
    start = view.line_start(at)
    previous = view.raw[view.line_start(max(start - 1, 0)) : start]
    return MARK.encode() in previous
