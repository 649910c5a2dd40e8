"""Names by which values of Celery are recognised."""

from __future__ import annotations

#: Attributes of an application that are decorators for tasks.
TASK_DECORATORS = frozenset({"task", "periodic_task"})
#: Decorators for tasks, by dotted name.
EXTERNAL_DECORATORS = frozenset(
    {"celery.shared_task", "celery.task", "celery.task.task", "celery.task.periodic_task", "celery.periodic_task"}
)
#: Functions and classes that return an application when called.
EXTERNAL_APPS = frozenset(
    {"celery.Celery", "celery.app.app_or_default", "celery.app_or_default", "flask_celery.Celery",
     "flask_celeryext.create_celery_app", "flask_celery_helper.Celery"}
)  # fmt: skip
#: Names of applications.
APPS = frozenset({"celery.current_app", "celery.app.default_app", "celery._state.default_app"})
#: Methods of a task or signature that return a result.
SUBMIT = frozenset({"delay", "apply_async", "apply", "retry", "replace"})
#: Methods of a task that return a signature.
SIGNATURES = frozenset({"s", "si", "signature", "subtask", "map", "starmap", "chunks", "signature_from_request"})
#: Methods of a signature that return a signature.
CHAINED = frozenset({"set", "clone", "on_error", "stamp", "group"})
#: Celery's canvas functions, by dotted name.
CANVAS = frozenset(
    {f"celery.{name}" for name in ("chain", "group", "chord", "chunks", "xmap", "xstarmap", "signature",
                                   "maybe_signature", "Signature")}
)  # fmt: skip
