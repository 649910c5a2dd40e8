"""How a task has its messages taken and kept book of: ``Task.Request`` and ``Task.Strategy``.

See https://docs.celeryq.dev/en/stable/userguide/tasks.html#requests-and-custom-requests.
"""

from __future__ import annotations

from typing import Any

from celery.app.task import Task
from celery.worker.request import Request
from celery.worker.strategy import default
from kombu.utils.imports import symbol_by_name

from raycelery.errors import OptionError

#: What a request is asked in a worker only, which hands the message to a pool.
_OF_WORKERS = ("execute", "execute_using_pool")


def request_class(task: Any) -> Any:
    """Return the class that keeps book of a task's messages in direct mode: its ``Request``.

    Arguments:
        task: an instance.

    Raises:
        OptionError: the task counts on a worker that consumes a broker, which direct mode has not.
    """
    if task.Strategy not in (Task.Strategy, default):
        raise OptionError(
            f"task {task.name!r} has a Strategy of its own ({_named(task.Strategy)}), which is how a worker takes "
            "messages from a broker (celery-batches collects them so); direct mode has no such worker: keep the broker "
            "with ray_mode='bridge'"
        )
    found = symbol_by_name(task.Request)
    for name in _OF_WORKERS:
        if getattr(found, name) is not getattr(Request, name):
            raise OptionError(
                f"task {task.name!r} has a Request of its own ({_named(found)}) with {name}(), which hands a message "
                "to a worker's pool; direct mode has none: keep the broker with ray_mode='bridge', or leave that "
                "method out (on_accepted, on_success, on_failure, on_retry and on_timeout are called)"
            )
    return found


def _named(made: Any) -> str:
    return made if isinstance(made, str) else f"{made.__module__}.{made.__qualname__}"
