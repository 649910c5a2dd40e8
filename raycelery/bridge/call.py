"""Calls that a task's own ``Strategy`` makes through the pool: celery-batches runs many messages in one call."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import celery
from celery.app.trace import fast_trace_task, trace_task_ret

from raycelery.bridge.apply_result import ApplyResult
from raycelery.protocol.codec import encode
from raycelery.protocol.messages import BridgedCall, CodeKey

#: What Celery's own ``Request`` has a pool call; with any other target it is a :class:`Call`.
TRACERS = (fast_trace_task, trace_task_ret)


class Call(ApplyResult):
    """A call of a function in an executor; what becomes of the messages that it is about is up to the caller.

    Arguments:
        target: the function, which executors can import.
        args: positional arguments, which can be pickled; if a task is among them, the call runs in that task's lane.
        kwargs: keyword arguments.
        options: callbacks and time limits, as for a message.
        on_terminate: see :class:`ApplyResult`.
    """

    def __init__(
        self,
        target: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        on_terminate: Callable[[ApplyResult], None],
    ) -> None:
        task = next((value for value in args if isinstance(value, celery.Task)), None)
        name = f"{target.__module__}.{target.__qualname__}" if task is None else task.name
        self._call = pickle.dumps((target, args, dict(kwargs)), 5)
        super().__init__((name, str(uuid.uuid4()), {}, None, None, None), options, on_terminate)

    @property
    def identity(self) -> str:
        """The call's id: a call is made once."""
        return str(self.id)

    def payload(self, module: str | None, code: CodeKey | None) -> bytes:
        """Return what the executor is told, encoded."""
        return encode(BridgedCall(self.task, self.id, self._call, self.soft_limit))

    def requeue(self) -> None:
        """Do nothing: a call has no message of its own to return."""
