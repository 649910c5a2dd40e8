"""What the pool returns to Celery for each message, as billiard's pool returns an ``ApplyResult``.

It calls the callbacks of Celery's ``Request`` as ``celery.concurrency.prefork`` does, see
https://docs.celeryq.dev/en/stable/internals/reference/celery.worker.request.html.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from typing import Any

import celery.exceptions
from billiard.einfo import ExceptionInfo, RemoteTraceback
from celery.exceptions import InvalidTaskError, WorkerLostError
from celery.worker import state

from raycelery.bridge import logs
from raycelery.bridge.ack_timeout import was_copied
from raycelery.bridge.sources import queue_of
from raycelery.protocol.codec import encode
from raycelery.protocol.messages import BridgedTask, CodeKey
from raycelery.protocol.reports import (
    Called,
    CannotRun,
    Event,
    Lost,
    Raised,
    Rejected,
    Returned,
    Terminated,
    TimedOut,
    Undeliverable,
)

logger = logging.getLogger(__name__)

#: Headers that executors need not be told: the message's body has them.
_IN_BODY = ("args", "kwargs")
#: No time limit is longer, in seconds.
_LONGEST = 1e9


class ApplyResult:
    """A message that the pool was given, until Celery has been told of its end.

    Arguments:
        arguments: what a pool's child process would call Celery's tracer with.
        options: what Celery's ``Request`` passes to a pool: callbacks, and time limits in seconds.
        on_terminate: called when Celery wants the message's run to end.

    Raises:
        InvalidTaskError: the task id or a time limit is not usable; Celery rejects such a message.
    """

    def __init__(
        self, arguments: tuple[Any, ...], options: dict[str, Any], on_terminate: Callable[[ApplyResult], None]
    ) -> None:
        self._on_terminate = on_terminate
        self.task, self.id, self._headers, self._body, self._content_type, self._encoding = arguments
        self._on_accepted: Callable[..., Any] | None = options.get("accept_callback")
        self._on_timeout: Callable[..., Any] | None = options.get("timeout_callback")
        self._on_success: Callable[..., Any] | None = options.get("callback")
        self._on_failure: Callable[..., Any] | None = options.get("error_callback")
        if not isinstance(self.id, str):
            raise InvalidTaskError(f"the task id {self.id!r} is not a string")
        self.soft_limit = _seconds(options.get("soft_timeout"))
        self.hard_limit = _seconds(options.get("timeout"))
        #: Celery's ``Request``; None for a call that is no message's.
        self.request: Any = getattr(self._on_accepted, "__self__", None)
        delivery = self._headers.get("delivery_info") or {}
        #: Whether the broker may have delivered the message before, so that it may be running already.
        self.redelivered = bool(delivery.get("redelivered")) or was_copied(self._headers)
        self.queue = queue_of(self.request)
        #: The batch that it is in, and its place in that; None while it waits, and once it has ended.
        self.batch_id: int | None = None
        self.index = 0
        #: Whether Celery was told that it runs, and the process that runs it (0: not known).
        self.accepted = False
        self.pid = 0
        #: Whether it is not known to be short, so that nothing is fetched ahead for its slot.
        self.slow = False
        #: Whether the broker delivers its message again, so that it is dropped unless it has begun.
        self.stale = False
        #: The signal that Celery wants it to be terminated with.
        self.terminating: int | None = None
        self.ended = False

    @property
    def identity(self) -> str:
        """The same for every delivery of one message; another for a retry, or for what replaces the task."""
        headers = self._headers
        # An exchange may have put one message into several queues.
        parts = [self.id, self.queue, str(headers.get("retries") or 0), str(headers.get("replaced_task_nesting") or 0)]
        tag = getattr(getattr(self.request, "_message", None), "delivery_tag", None)
        if isinstance(tag, str):  # Redis's; RabbitMQ's is the channel's count of deliveries
            parts.append(tag)
        return "/".join(parts)

    def payload(self, module: str | None, code: CodeKey | None) -> bytes:
        """Return what the executor is told, encoded.

        Arguments:
            module: that has the task.
            code: the task's, where it travels by value.
        """
        headers = {key: value for key, value in self._headers.items() if key not in _IN_BODY}
        body = bytes(self._body) if isinstance(self._body, memoryview) else self._body
        return encode(
            BridgedTask(
                task=self.task,
                task_id=self.id,
                request=pickle.dumps((headers, body), 5),
                content_type=self._content_type,
                content_encoding=self._encoding,
                soft_limit=self.soft_limit,
                hostname=headers.get("hostname"),
                module=module,
                code=code,
            )
        )

    # -- what Celery asks ---------------------------------------------------------------------------------------

    def terminate(self, signum: int) -> None:
        """End the run at once; Celery's ``Request`` calls this."""
        if not self.ended and self.terminating is None:
            self.terminating = int(signum)
            self._on_terminate(self)

    def revoked(self) -> bool:
        """Return whether it was revoked, or has expired, before it began; Celery has done the bookkeeping then."""
        if self.request is None or not self.request.revoked():
            return False
        self.ended = True
        return True

    # -- what became of it --------------------------------------------------------------------------------------

    def accept(self, pid: int) -> None:
        """Tell Celery that it runs: an early acknowledgement and the event task-started are sent."""
        if not self.accepted:
            self.accepted = True
            self._callback(self._on_accepted, pid, time.monotonic())

    def end(self, event: Event) -> None:
        """Tell Celery how it ended.

        Arguments:
            event: the last one that was reported of it.
        """
        self.ended = True
        if isinstance(event, (Returned, Called, Raised, Rejected, CannotRun)):
            self.accept(event.pid)
        else:
            self.accept(self.pid)
        match event:
            case Returned(text, seconds):
                if self.request is not None:
                    self._callback(logs.succeeded, self.request, text, seconds)
                self._callback(self._on_success, (0, text, seconds))
            case Called(value, seconds):
                self._callback(self._on_success, pickle.loads(value))
            case CannotRun(einfo):
                self._callback(self._on_failure, _einfo_from(einfo))
            case Raised(einfo, seconds) | Rejected(einfo, seconds):
                found = _einfo_from(einfo)
                if self.request is not None:
                    self._callback(logs.failed, self.request, found)
                self._callback(self._on_success, (1, found, seconds))
            case TimedOut():
                self._callback(self._on_timeout, False, self.hard_limit)
            case Lost(reason) if self.terminating is None:
                self._callback(self._on_failure, _einfo_of(WorkerLostError(reason)))
            case Terminated() | Lost():
                self._callback(self._on_failure, _einfo_of(celery.exceptions.Terminated(self.terminating or 15)))
            case Undeliverable(reason):
                self._fail_for_good(reason)

    def fail(self, exc: Exception) -> None:
        """Fail it with an error: it cannot be handed to the dispatcher."""
        logger.error("task %s cannot be handed to the dispatcher: %s", self.id, exc)
        self.ended = True
        self.accept(0)
        self._callback(self._on_failure, _einfo_of(exc))

    def requeue(self) -> None:
        """Return the message to the broker: it has not begun, and another worker may have room for it."""
        self.ended = True
        request = self.request
        request.on_reject(logger, request.connection_errors, True)
        request.acknowledged = True
        state.requests.pop(self.id, None)
        state.reserved_requests.discard(request)

    def _fail_for_good(self, reason: str) -> None:
        """Have Celery record a failure that no setting turns into another delivery."""
        task = getattr(self.request, "task", None)
        if task is None:
            return
        before = task.reject_on_worker_lost
        task.reject_on_worker_lost = False
        try:
            self._callback(self._on_failure, _einfo_of(WorkerLostError(reason)))
        finally:
            task.reject_on_worker_lost = before

    def _callback(self, callback: Callable[..., Any] | None, *args: Any) -> None:
        if callback is None:
            return
        try:
            callback(*args)
        except Exception:  # as other pools do: what a callback raises is about one message, and the worker goes on
            logger.exception("the worker's bookkeeping of task %s failed", self.id)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _LONGEST:
        raise InvalidTaskError(f"the time limit {value!r} is not a number of seconds")
    return value


def _einfo_of(exc: Exception) -> ExceptionInfo:
    try:
        raise exc
    except Exception:  # it is the one above
        return ExceptionInfo()


def _einfo_from(pickled: bytes) -> ExceptionInfo:
    """Return what an executor tells of an error, as Celery's pool would; a class that is not here has a stand-in."""
    exc, tb, traceback, internal = pickle.loads(pickled)
    exc.__cause__ = RemoteTraceback(f'\n"""\n{traceback}"""')
    einfo = ExceptionInfo.__new__(ExceptionInfo)
    einfo.type, einfo.exception, einfo.tb = type(exc), exc, tb
    einfo.traceback, einfo.internal = traceback, internal
    return einfo
