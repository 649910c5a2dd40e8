"""How results are used: methods that the helper module's results lack, and results that are read by id."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from ...project.values import Value
from ...project.view import View

_OF_RESULT = frozenset(
    {"id", "task_id", "get", "wait", "ready", "successful", "failed", "state", "status", "result", "info", "traceback",
     "revoke", "forget"}
)  # fmt: skip
_OF_RESULTS = frozenset(
    {"get", "join", "join_native", "results", "ready", "successful", "failed", "waiting", "completed_count", "append",
     "extend", "index", "count", "copy"}
)  # fmt: skip
#: Arguments that the helper's methods accept, or that only concern a result backend.
_ARGUMENTS = {
    "get": frozenset({"timeout", "propagate", "interval", "no_ack", "follow_parents", "disable_sync_subtasks"}),
    "revoke": frozenset({"terminate", "signal"}),
}
_CLASSES = frozenset({"celery.result.AsyncResult", "celery.result.EagerResult"})
#: Classes and functions of Celery that do not accept the helper's results.
_MADE = ("celery.result.GroupResult", "celery.result.ResultSet", "celery.result.result_from_tuple")


@dataclass(frozen=True)
class Lookup:
    """A call that reads a result by its id: ``AsyncResult(task_id)``.

    Arguments:
        node: the call.
        task: module and name of the task in ``T.AsyncResult(task_id)``; None for Celery's own class.
    """

    node: cst.Call
    task: tuple[str, str] | None

    def render(self, view: View, others: bool) -> str:
        """Return the call of the helper's ``result_of``.

        Arguments:
            others: the id may be that of a task that stays on raycelery.
        """
        argument, *more = [view.source(one.value) for one in self.node.args]
        function = view.source(self.node.func)
        if not others:
            return f"result_of({argument})"
        otherwise = f"lambda task_id: {function}(task_id, app={more[0]})" if more else function
        return f"result_of({argument}, {otherwise})"


def lookup(view: View, node: cst.Call) -> Lookup | None:
    """Return a call as a lookup by id; None if it is anything else or has arguments that the helper lacks."""
    value = view.value(node)
    if value is None or value.kind != "result" or value.name != "by id":
        return None
    names = [one.keyword.value if one.keyword is not None else None for one in node.args]
    others = [one for one in node.args[1:] if one.keyword is not None and one.keyword.value == "app"]
    if not node.args or any(one.star for one in node.args) or names[0] not in (None, "id", "task_id"):
        return None
    if (
        len(others) != len(node.args) - 1
        or len(others) > 1
        or any(isinstance(one, cst.Comment) for one in view.nodes_in(node))
    ):
        return None
    task = None
    if isinstance(node.func, cst.Attribute):
        owner = view.value(node.func.value)
        if owner is not None and owner.kind == "task" and owner.module and owner.name not in ("made", "parameter"):
            task = (owner.module, owner.name)
    return Lookup(node, task)


def lookups(view: View) -> tuple[list[Lookup], list[cst.CSTNode]]:
    """Return the lookups by id that the helper supports, and the nodes of those that it does not."""
    found: list[Lookup] = []
    odd: list[cst.CSTNode] = []
    for node in view.nodes:
        if isinstance(node, cst.Call):
            one = lookup(view, node)
            value = view.value(node)
            if one is not None:
                found.append(one)
            elif value is not None and value.kind == "result" and value.name == "by id":
                odd.append(node)
        elif isinstance(node, cst.Attribute | cst.Name) and _is_odd(view, node):
            odd.append(node)
    return found, odd


def _is_odd(view: View, node: cst.Attribute | cst.Name) -> bool:
    parent = view.parents.get(node)
    if isinstance(parent, cst.Attribute) and parent.attr is node:
        return False
    if isinstance(node, cst.Attribute):
        value = view.value(node)
        if value is not None and value.kind == "app.attribute":
            return value.name.startswith("backend.") or value.name in ("control.revoke", "control.terminate")
    name = view.dotted(node) or ""
    if isinstance(parent, cst.ImportAlias | cst.ImportFrom | cst.AsName):
        return False
    if name.startswith(_MADE):
        return not any(isinstance(one, cst.Annotation) for one in view.around(node))
    if (
        name not in _CLASSES
        or isinstance(parent, cst.Attribute)
        or (isinstance(parent, cst.Call) and parent.func is node)
    ):
        return False
    # Such as isinstance(x, AsyncResult). Annotations are not evaluated, so they do not matter.
    in_helper = isinstance(parent, cst.Arg) and _calls_helper(view.parents.get(parent))
    return not in_helper and not any(isinstance(one, cst.Annotation) for one in view.around(node))


def _calls_helper(node: cst.CSTNode | None) -> bool:
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "result_of"


def unlike(view: View) -> list[tuple[cst.Attribute, Value, str]]:
    """Return uses of results that the helper's results do not support: the attribute, the result, and the reason."""
    found = []
    for node in view.nodes:
        if not isinstance(node, cst.Attribute):
            continue
        value = view.value(node.value)
        if value is None or value.kind not in ("result", "results"):
            continue
        name = node.attr.value
        known = _OF_RESULT if value.kind == "result" else _OF_RESULTS
        if name not in known:
            found.append((node, value, f"{name} of a result is used"))
            continue
        call = view.parents.get(node)
        method = "get" if name in ("get", "wait", "join", "join_native") else name
        if isinstance(call, cst.Call) and call.func is node and method in _ARGUMENTS:
            odd = [_named(one) for one in call.args if _named(one) not in _ARGUMENTS[method]]
            if len(call.args) - len([one for one in call.args if one.keyword]) > 2 or any(odd) or _starred(call):
                what = ", ".join(one for one in odd if one) or "such arguments"
                found.append((node, value, f"{name} of a result is called with {what}"))
    return found


def _named(argument: cst.Arg) -> str | None:
    return argument.keyword.value if argument.keyword is not None else None


def _starred(call: cst.Call) -> bool:
    return any(one.star for one in call.args)
