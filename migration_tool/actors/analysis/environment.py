"""Finds what Celery sets up for tasks and Ray's processes would lack: Django, signal handlers, a custom task class."""

from __future__ import annotations

import libcst as cst

from ...project import tables
from ...project.view import View
from ...workspace import CELERY
from .definitions import CURRENT

#: Signals that only Celery's worker or producer sends.
_SIGNALS = frozenset(
    {"worker_init", "worker_process_init", "worker_process_shutdown", "task_prerun", "task_postrun", "task_success",
     "task_failure", "task_retry", "task_revoked", "task_received", "task_unknown", "task_rejected",
     "task_internal_error", "before_task_publish", "after_task_publish"}
)  # fmt: skip


def blockers(view: View, where: str) -> list[str]:
    """Return the reasons in this file against converting any task of the project.

    Arguments:
        where: the file's path, for the reasons.
    """
    found = []

    def place(node: cst.CSTNode) -> str:
        return f"({where}:{view.line(view.span(node)[0])})"

    if "DJANGO_SETTINGS_MODULE" in view.text and CELERY.search(view.text):
        found.append(f"Celery sets Django up for it, which Ray does not ({where}:1)")
    for node in view.nodes:
        if isinstance(node, cst.AssignTarget) and isinstance(node.target, cst.Attribute):
            if node.target.attr.value in ("Task", "task_cls"):
                owner = view.value(node.target.value)
                if owner is not None and owner.kind == "app":
                    found.append(f"the application has a task class of its own {place(node)}")
        elif isinstance(node, cst.Call) and any(one.keyword and one.keyword.value == "task_cls" for one in node.args):
            if view.dotted(node.func) in tables.EXTERNAL_APPS:
                found.append(f"the application has a task class of its own {place(node)}")
        elif isinstance(node, cst.Attribute) and node.attr.value == "connect":
            name = view.dotted(node) or ""
            signal = name.removeprefix("celery.signals.").removesuffix(".connect")
            if name.startswith("celery.signals.") and signal in _SIGNALS:
                found.append(f"the signal {signal} is handled, which only Celery sends {place(node)}")
        why = _unreadable(view, node)
        if why is not None:
            found.append(f"{why} {place(node)}")
    return found


def _unreadable(view: View, node: cst.CSTNode) -> str | None:
    """Return why a node may use any task of the project, if it may."""
    if isinstance(node, cst.Call) and node.args:
        value = view.value(node.func)
        by_name = value is not None and (
            (value.kind == "app.attribute" and value.name in ("send_task", "signature"))
            or (value.kind == "external" and value.name == "celery.signature")
        )
        if by_name and not _is_constant(view, node.args[0].value):
            return "a task is named by an expression that is only known when it runs"
    if not isinstance(node, cst.Name | cst.Attribute) or isinstance(view.parents.get(node), cst.ImportAlias):
        return None
    value, parent = view.value(node), view.parents.get(node)
    if value is None:
        return None
    if value.kind == "app.attribute" and value.name == "tasks":
        index = parent.slice[0].slice if isinstance(parent, cst.Subscript) and parent.value is node else None
        known = isinstance(index, cst.Index) and _is_constant(view, index.value)
        return None if known else "tasks are looked up in the application's registry"
    if value.kind == "external" and value.name in CURRENT and not _is_in_task(view, node):
        return "current_task is used outside of tasks"
    return None


def _is_constant(view: View, node: cst.BaseExpression) -> bool:
    """Return whether an expression is a string constant of this file, or the name of one."""
    found = view.expression(node)
    if found is not None and found[0] == "name":
        found = view.project.modules[view.key].bindings.get(found[1])
    return found is not None and found[0] == "str"


def _is_in_task(view: View, node: cst.CSTNode) -> bool:
    functions = [outer for outer in view.around(node) if isinstance(outer, cst.FunctionDef)]
    return any(view.project.task(view.key, view.qualname(one)) is not None for one in functions)
