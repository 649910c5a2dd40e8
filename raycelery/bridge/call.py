"""Calls that a task's own ``Strategy`` makes through the pool: celery-batches runs many messages' worth in one."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import celery
from celery.app.trace import fast_trace_task, trace_task_ret

from raycelery.bridge.apply_result import Job

if TYPE_CHECKING:
    from raycelery.bridge.pool import Pool

#: What Celery's own ``Request`` has a pool call; all else is another's call.
TRACERS = (fast_trace_task, trace_task_ret)


class Call(Job):
    """A call of a function in an executor. The messages that it is about are the caller's affair, not the pool's.

    Arguments:
        pool: whose.
        target: the function, which executors can import.
        args: positional arguments, which can be pickled; a task among them tells where it runs.
        kwargs: keyword arguments.
        options: callbacks and time limits, as for a message.
    """

    def __init__(
        self, pool: Pool, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> None:
        task = next((value for value in args if isinstance(value, celery.Task)), None)
        name = f"{target.__module__}.{target.__qualname__}" if task is None else task.name
        self._call = pickle.dumps((target, args, dict(kwargs)), 5)
        super().__init__(pool, (name, str(uuid.uuid4()), {}, None, None, None), options)

    @property
    def identity(self) -> str:
        """No other has it: a call is made once."""
        return str(self.id)

    def payload(self, module: str | None, code: tuple[str, bool] | None) -> bytes:
        """Return what the executor is told."""
        return pickle.dumps((self.task, self.id, None, self._call, None, None, self.soft_limit, None, module, code), 5)

    def _succeed(self, value: Any, seconds: float) -> None:
        self._tell(self._on_success, pickle.loads(value))

    def give_back(self) -> None:
        """Do nothing: the worker has no message of its own to return."""
