"""Values that expressions can have."""

from __future__ import annotations

from dataclasses import dataclass

#: Celery's aliases, and the shortest name of each object.
_SHORT = {
    "celery.app.base.Celery": "celery.Celery",
    "celery.app.Celery": "celery.Celery",
    "celery.App": "celery.Celery",
    "celery.app.task.Task": "celery.Task",
    "celery.app.Task": "celery.Task",
    "celery.task.base.Task": "celery.Task",
    "celery.task.Task": "celery.Task",
    "celery.app.shared_task": "celery.shared_task",
    "celery.app.builtins.shared_task": "celery.shared_task",
    "celery._state.current_app": "celery.current_app",
    "celery.decorators.task": "celery.task.task",
    "celery.utils.log.get_logger": "celery.utils.log.get_task_logger",
    "celery.decorators.periodic_task": "celery.task.periodic_task",
}  # fmt: skip


def canonical(dotted: str) -> str:
    """Return one dotted name for an object that Celery or raycelery has under several."""
    top, dot, rest = dotted.partition(".")
    if top == "raycelery":
        dotted = "celery" + dot + rest
    if dotted.startswith(("celery.canvas.", "celery.app.canvas.")):
        last = dotted.rpartition(".")[2]
        dotted = f"celery.{'signature' if last == 'subtask' else last}"
    elif dotted == "celery.subtask":
        dotted = "celery.signature"
    return _SHORT.get(dotted, dotted)


@dataclass(frozen=True)
class Value:
    """The value of a name or expression, as far as it matters here.

    Arguments:
        kind: "external", "module", "function", "class", "instance", "app", "app.attribute", "task", "task.attribute",
            "bound task" (``self`` of a bound task), "signature", "result", "results", "decorator".
        name: the dotted name outside the project, the qualified name in a module, or the name of an attribute.
        module: key of the module that defines it; empty if it is outside the project.
        of: the value that an attribute or instance belongs to.
    """

    kind: str
    name: str = ""
    module: str = ""
    of: Value | None = None

    @property
    def is_celery(self) -> bool:
        """Whether it is an object of Celery's, or was made with it."""
        if self.kind == "external":
            return self.name == "celery" or self.name.startswith("celery.")
        return self.kind not in ("module", "function", "class", "instance")
