"""Whether anything of the application's own has a part in publishing, and so may look at what it happens within."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any

from celery import signals
from celery.app import task as celery_task

#: Where our own ``send_task`` is.
_APPLICATION = str(Path(__file__).with_name("application.py"))


class Publishing:
    """How an application's messages are published.

    Handlers of ``before_task_publish`` copy headers from the task that runs and ids of traces from context variables,
    and so do overridden and patched ``apply_async`` and ``send_task``. See
    https://docs.celeryq.dev/en/stable/userguide/signals.html#before-task-publish.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        #: How many tasks were looked at last, with which ``apply_async`` of Celery's class; what came of it.
        self._seen: tuple[int, Any] = (-1, None)
        self._overridden = False

    def observed(self) -> bool:
        """Return whether a signal has handlers, or a method by which Celery publishes is not Celery's own."""
        if signals.before_task_publish.receivers or signals.after_task_publish.receivers:
            return True
        now = (len(self._app._tasks), celery_task.Task.apply_async)
        if now != self._seen:
            self._seen = now
            self._overridden = self._is_overridden()
        return self._overridden

    def _is_overridden(self) -> bool:
        if not _is_from(getattr(self._app.send_task, "__func__", None), _APPLICATION):
            return True
        classes = {type(task) for task in self._app._tasks.values()}
        return not all(_is_from(one.apply_async, celery_task.__file__) for one in classes | {celery_task.Task})


def _is_from(method: Any, file: str) -> bool:
    """Return whether a function was written in a file; one that wraps it was not, whatever it says of itself."""
    return isinstance(method, FunctionType) and method.__code__.co_filename == file
