"""Names of Celery's modules: which there are, and which import statements name them."""

from __future__ import annotations

import libcst as cst

from .view import dotted_name

#: What Celery 5 no longer has; raycelery has what Celery 5 has.
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
    """Whether a dotted name is Celery's."""
    return dotted is not None and (dotted == "celery" or dotted.startswith("celery."))


def gone(dotted: str) -> str | None:
    """What to use instead of a module that Celery 5 does not have; None for one that it has."""
    for name, instead in GONE.items():
        if dotted == name or dotted.startswith(f"{name}."):
            return instead
    return None


def modules(node: cst.Import | cst.ImportFrom) -> list[str]:
    """The dotted names of the modules that an import statement names."""
    if isinstance(node, cst.ImportFrom):
        name = dotted_name(node.module) if not node.relative else None
        return [name] if name else []
    return [alias.evaluated_name for alias in node.names]
