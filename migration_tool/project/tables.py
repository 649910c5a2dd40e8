"""Names by which the evaluator recognises what calls and attributes give."""

from __future__ import annotations

#: Of an app: decorators that make tasks.
TASK_DECORATORS = frozenset({"task", "periodic_task"})
#: Decorators that make tasks, by their dotted name.
EXTERNAL_DECORATORS = frozenset(
    {"celery.shared_task", "celery.task", "celery.task.task", "celery.task.periodic_task", "celery.periodic_task"}
)
#: Calls that give an app.
EXTERNAL_APPS = frozenset(
    {"celery.Celery", "celery.app.app_or_default", "celery.app_or_default", "flask_celery.Celery",
     "flask_celeryext.create_celery_app", "flask_celery_helper.Celery"}
)  # fmt: skip
#: Names that are an app.
APPS = frozenset({"celery.current_app", "celery.app.default_app", "celery._state.default_app"})
#: Of a task or signature: give a result.
SUBMIT = frozenset({"delay", "apply_async", "apply", "retry", "replace"})
#: Of a task: give a signature.
SIGNATURES = frozenset({"s", "si", "signature", "subtask", "map", "starmap", "chunks", "signature_from_request"})
#: Of a signature: give a signature.
CHAINED = frozenset({"set", "clone", "on_error", "stamp", "group"})
#: Celery's canvas functions, by their dotted name.
CANVAS = frozenset(
    {f"celery.{name}" for name in ("chain", "group", "chord", "chunks", "xmap", "xstarmap", "signature",
                                   "maybe_signature", "Signature")}
)  # fmt: skip
