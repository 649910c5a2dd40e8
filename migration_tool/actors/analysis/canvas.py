"""Finds canvases of known tasks that are built and applied in one expression or on consecutive lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import libcst as cst

from ...project.view import View
from .lines import Lines, has_comments

_APPLY = ("delay", "apply_async")


@dataclass
class Signature:
    """A signature of a task: ``T.s(...)``, or ``T.si(...)`` if it is immutable."""

    task: tuple[str, str]
    expression: cst.BaseExpression
    node: cst.Call
    immutable: bool


@dataclass
class Group:
    """A group: its signatures written out, or one signature for each element of a comprehension."""

    signatures: list[Signature]
    comprehension: cst.CompFor | None = None


@dataclass
class Canvas:
    """A canvas that is applied.

    Arguments:
        node: the call that applies it.
        steps: the parts of the chain in order; a group can only be first.
        built: statements above it that only build the canvas; they are removed.
    """

    node: cst.Call
    steps: list[Signature | Group]
    built: list[cst.SimpleStatementLine] = field(default_factory=list)

    @property
    def signatures(self) -> list[Signature]:
        """All signatures, those of groups included."""
        found: list[Signature] = []
        for step in self.steps:
            found += [step] if isinstance(step, Signature) else step.signatures
        return found

    @property
    def helpers(self) -> set[str]:
        """Names of the helper module that the converted code needs."""
        names = {"submit"}
        if isinstance(self.steps[0], Group):
            names.add("gather" if len(self.steps) > 1 else "Results")
        return names

    def render(self, view: View, remote: Callable[[Signature], str], keep: bool = False) -> str:
        """Return the canvas as plain Ray code.

        Arguments:
            remote: returns the name of a signature's remote function in this file.
            keep: keep the result, so that it can be read by its id.
        """

        def submitted(signature: Signature, *first: str) -> str:
            text = arguments(view, signature.node)
            return f"submit({led_by(', '.join([remote(signature), *first]), text)})"

        def single(signature: Signature) -> str:
            return f"keep({submitted(signature)})" if keep and not rest else submitted(signature)

        head, *rest = self.steps
        if isinstance(head, Group):
            if head.comprehension is not None:
                inner = f"{single(head.signatures[0])} {view.source(head.comprehension).lstrip()}"
            else:
                inner = "[" + ", ".join(single(one) for one in head.signatures) + "]"
            text = f"gather({inner})" if rest else f"Results({inner})"
        else:
            text = submitted(head) + (".ref" if rest else "")
        for number, step in enumerate(rest, 1):
            assert isinstance(step, Signature)
            text = submitted(step, text) + (".ref" if number < len(rest) else "")
        return f"keep({text})" if keep and rest else text


def arguments(view: View, call: cst.Call) -> str:
    """Return a call's arguments as written, without a trailing comma where they begin on its line."""
    if not call.args:
        return ""
    start, _ = view.span(call.args[0])
    opening = view.raw.index(b"(", view.whole(call.func)[1])
    if has_comments(view, call) or b"\n" in view.raw[opening:start]:
        return view.between(opening + 1, view.span(call)[1] - 1)
    _, end = view.whole(call.args[-1].value)
    return view.between(start, end)


def led_by(first: str, given: str) -> str:
    """Return the code of arguments with one more before them, on a line of its own where they begin on one."""
    beginning = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)+[ \t]*", given)
    if beginning is None:
        return f"{first}, {given}" if given else first
    lead, rest = beginning.group(), given[beginning.end() :]
    if not rest:
        return f"{lead}{first}"
    indent = lead.rpartition("\n")[2]
    return f"{lead}{first},\n{indent}{rest}"


def applications(view: View) -> list[Canvas]:
    """Return all convertible canvases of a file."""
    found = []
    for node in view.nodes:
        if isinstance(node, cst.Call):
            canvas = _application(view, node)
            if canvas is not None and not has_comments(view, node):
                found.append(canvas)
    return found


def _application(view: View, node: cst.Call) -> Canvas | None:
    function, given = node.func, [argument.value for argument in node.args if not argument.star]
    if isinstance(function, cst.Attribute) and function.attr.value in _APPLY and not node.args:
        function, given = function.value, []
    if not isinstance(function, cst.Call | cst.BinaryOperation | cst.Name):
        return None
    lines = Lines(view, node)
    given = lines.values_of(given)
    function = lines.values_of([function])[0]
    if not isinstance(function, cst.Call | cst.BinaryOperation):
        return None
    canvas = _canvas(view, node, function, given, lines)
    if canvas is not None:
        canvas.built = lines.read
    return canvas


def _canvas(
    view: View, node: cst.Call, built: cst.BaseExpression, given: list[cst.BaseExpression], lines: Lines
) -> Canvas | None:
    """Return the canvas that ``built(*given)`` applies; None if it cannot be converted."""
    if isinstance(built, cst.BinaryOperation):
        steps = _piped(view, built)
        return Canvas(node, steps) if len(steps) > 1 and not given and _passes_on(steps) else None
    if not isinstance(built, cst.Call) or any(one.star or one.keyword for one in built.args):
        return None
    name = view.dotted(built.func)
    if name not in ("celery.chord", "celery.group", "celery.chain"):
        return None
    values = lines.values_of([argument.value for argument in built.args])
    if name == "celery.chord":
        if len(values) + len(given) != 2:
            return None
        header, body = _group(view, values[:1]), _signature(view, [*values, *given][1])
        return Canvas(node, [header, body]) if header and body and not body.immutable else None
    if given:
        return None
    if name == "celery.group":
        group = _group(view, values)
        return Canvas(node, [group]) if group is not None else None
    parts = [_piped(view, one) for one in values]
    known = [step for part in parts for step in part]
    head = known[0] if known else None
    if isinstance(head, Group) and (head.comprehension is not None or len(head.signatures) == 1):
        return None  # chain makes a group of one a task, whose value is not in a list
    return Canvas(node, known) if all(parts) and len(known) > 1 and _passes_on(known) else None


def _passes_on(steps: list[Signature | Group]) -> bool:
    """Return whether each step takes the result of the one before, as Ray orders tasks only by that."""
    return not any(isinstance(one, Group) or one.immutable for one in steps[1:])


def _piped(view: View, node: cst.BaseExpression) -> list[Signature | Group]:
    """Return the steps of ``a | b``, or of one signature or group; an empty list if one is anything else."""
    if isinstance(node, cst.BinaryOperation):
        if not isinstance(node.operator, cst.BitOr):
            return []
        left, right = _piped(view, node.left), _piped(view, node.right)
        return [*left, *right] if left and right else []
    if isinstance(node, cst.Call) and view.dotted(node.func) == "celery.group":
        if any(one.star or one.keyword for one in node.args):
            return []
        group = _group(view, [one.value for one in node.args])
        return [group] if group is not None else []
    signature = _signature(view, node)
    return [signature] if signature is not None else []


def _group(view: View, values: list[cst.BaseExpression]) -> Group | None:
    if len(values) == 1 and isinstance(values[0], cst.GeneratorExp | cst.ListComp):
        signature = _signature(view, values[0].elt)
        return Group([signature], values[0].for_in) if signature is not None else None
    if len(values) == 1 and isinstance(values[0], cst.List | cst.Tuple):
        if any(isinstance(element, cst.StarredElement) for element in values[0].elements):
            return None
        values = [element.value for element in values[0].elements]
    signatures = [_signature(view, one) for one in values]
    known = [one for one in signatures if one is not None]
    return Group(known) if known and len(known) == len(signatures) else None


def _signature(view: View, node: cst.BaseExpression) -> Signature | None:
    if (
        not isinstance(node, cst.Call)
        or not isinstance(node.func, cst.Attribute)
        or node.func.attr.value not in ("s", "si")
    ):
        return None
    value = view.value(node.func.value)
    if value is None or value.kind != "task" or not value.module:
        return None
    return Signature((value.module, value.name), node.func.value, node, node.func.attr.value == "si")
