"""Celery's tracer, for which every error that a task raises is the task's failure, and arrives as its own class.

Celery's own lets what is no ``Exception`` (``asyncio.CancelledError``, ``gevent.Timeout``) end the process, and puts
another error in the place of one that plain pickle cannot carry. See
https://docs.celeryq.dev/en/stable/internals/reference/celery.app.trace.html.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from celery.app import trace
from celery.app.trace import TraceInfo

from raycelery.app.backend import RayBackend
from raycelery.errors import LEAVING
from raycelery.serialization import remote_errors, values


class _Contained(Exception):
    """Takes what is no ``Exception`` through Celery's tracer; the error itself is ``exc``."""

    def __init__(self, exc: BaseException) -> None:
        super().__init__(exc)
        self.exc = exc


class _Outcome(TraceInfo):  # type: ignore[misc]
    """What Celery's tracer makes of an error."""

    __slots__ = ()

    def __init__(self, state: str, retval: Any = None) -> None:
        super().__init__(state, retval.exc if type(retval) is _Contained else retval)

    def handle_failure(self, task: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        """Note a failure."""
        if not isinstance(task.backend, RayBackend):
            return super().handle_failure(task, req, *args, **kwargs)
        with remote_errors.portable(self.retval, values.dumps_inline):
            return super().handle_failure(task, req, *args, **kwargs)


def tracer_of(app: Any, task: Any, hostname: str) -> Any:
    """Return the function that runs messages of a task, as Celery's ``build_tracer`` does."""
    # Looked up in its module: Sentry replaces it there, by a function that puts one of its own around what is returned.
    tracer = trace.build_tracer(task.name, task, app.loader, hostname, app=app, Info=_Outcome)
    # It takes no function to call instead of the task's: the ones that it has found are replaced.
    own = inspect.unwrap(tracer)
    for name, cell in zip(own.__code__.co_freevars, own.__closure__, strict=True):
        if name in ("fun", "task_before_start") and cell.cell_contents is not None:
            cell.cell_contents = _contained(cell.cell_contents)
    return tracer


def _contained(fun: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fun(*args, **kwargs)
        except Exception:
            raise
        except LEAVING:
            raise
        except BaseException as exc:
            raise _Contained(exc) from exc

    return call
