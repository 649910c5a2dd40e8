"""Finds what Celery sets up for tasks and Ray's processes would lack: Django, signal handlers, a custom task class."""

from __future__ import annotations

import libcst as cst

from ...project import tables
from ...project.view import View
from ...workspace import CELERY

#: Signals that only Celery's worker or producer sends.
_SIGNALS = frozenset(
    {"worker_init", "worker_process_init", "worker_process_shutdown", "task_prerun", "task_postrun", "task_success",
     "task_failure", "task_retry", "task_revoked", "task_received", "task_unknown", "task_rejected",
     "task_internal_error", "before_task_publish", "after_task_publish"}
)  # fmt: skip


def blockers(view: View, where: str) -> list[str]:
    """Return the reasons in this file against converting any task of the project.

    Arguments:
        where: the file's path, for the reasons."""
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
    return found
