"""Names of Celery's modules, also in import statements."""

from __future__ import annotations

import libcst as cst

from .view import dotted_name

#: Modules that Celery 5 no longer has, so neither has raycelery; and what to use instead.
GONE = {
    "celery.task.control": "use the application's control: app.control",
    "celery.task.schedules": "use celery.schedules",
    "celery.task.http": "write a task that makes the request",
    "celery.task.sets": "use celery.group",
    "celery.task": "import shared_task, or use the application's own task decorator",
    "celery.decorators": "import shared_task, or use the application's own task decorator",
    "celery.messaging": "use kombu",
    "celery.execute": "use app.send_task",
    "celery.log": "use celery.utils.log",
    "celery.registry": "use app.tasks",
    "celery.contrib.batches": "install celery-batches, and keep it on Celery's own worker",
    "celery.backends.amqp": "use the backend rpc://",
}


def is_celery(dotted: str | None) -> bool:
    """Return whether a dotted name is ``celery`` or below it."""
    return dotted is not None and (dotted == "celery" or dotted.startswith("celery."))


def gone(dotted: str) -> str | None:
    """Return what to use instead of a module that Celery 5 does not have; None for one that it has."""
    for name, instead in GONE.items():
        if dotted == name or dotted.startswith(f"{name}."):
            return instead
    return None


def modules(node: cst.Import | cst.ImportFrom) -> list[str]:
    """Return the dotted names of the modules that an import statement names; none for a relative import."""
    if isinstance(node, cst.ImportFrom):
        name = dotted_name(node.module) if not node.relative else None
        return [name] if name else []
    return [alias.evaluated_name for alias in node.names]
