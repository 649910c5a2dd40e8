"""Messages of direct mode: the executor keeps Celery's books of them."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu.compression import decompress
from kombu.serialization import loads as kombu_loads

from raycelery.app.backend import RayBackend
from raycelery.errors import InfeasibleError
from raycelery.executor import ending
from raycelery.executor.bookkeeping import Bookkeeping, Delivery
from raycelery.executor.ending import Ending
from raycelery.executor.hostname import HOSTNAME
from raycelery.executor.output import OUTPUT
from raycelery.executor.runner import Message, Runner, TaskMessage
from raycelery.protocol import messages
from raycelery.protocol.messages import Assignment, ChordAssignment
from raycelery.protocol.reports import Done, Report, Requeue
from raycelery.serialization import values

logger = logging.getLogger(__name__)


class DirectMessage(TaskMessage):
    """The call of a task in direct mode.

    Arguments:
        bookkeeping: of the application.
        assigned: what the dispatcher has sent.
    """

    # What few messages change is set in the class.
    _task: Any = None
    _embed: dict[str, Any] | None = None
    #: Made where its class is the project's own; where somebody listens to events.
    _own: Request | None = None
    _observed: Request | None = None
    #: How it ended, unless it succeeded; seconds that it ran, None where its task was not called.
    _ending: Ending | None = None
    _seconds: float | None = None
    _requeued = False

    def __init__(self, bookkeeping: Bookkeeping, assigned: Assignment) -> None:
        self._bookkeeping = bookkeeping
        self._assigned = assigned

    def open(self) -> None:
        assigned = self._assigned
        self._sent = sent = messages.opened(assigned.payload)
        self.task_id, self.name, self.module, self.code = assigned.task_id, assigned.task, sent.module, sent.code
        headers, properties = messages.headers_and_properties(sent, self.task_id, self.name)
        OUTPUT.begin(properties.get("log_to"), self.task_id, headers.get("shadow") or self.name)
        headers["hostname"] = HOSTNAME
        self._headers, self._properties = headers, properties
        self.soft_limit = (headers.get("timelimit") or (None, None))[1]
        self._delivery_info = {
            "exchange": sent.delivery.exchange,
            "routing_key": sent.delivery.routing_key,
            "priority": sent.delivery.priority,
            "redelivered": assigned.deliveries > 0,
        }
        self.request = {
            **headers,
            "delivery_info": self._delivery_info,
            "properties": properties,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "is_eager": False,
            "args": (),
            "kwargs": {},
        }

    def decode(self, accept: Any) -> Callable[[], tuple[Any, Any]]:
        sent = self._sent
        if sent.content_type is None:
            self._embed, arguments = values.open_body(sent.body)
        else:
            self._embed = values.loads(sent.embed) if sent.embed else {}

            def arguments() -> tuple[Any, Any]:
                compression = self._headers.get("compression")
                data = decompress(sent.body, compression) if compression else sent.body
                args, kwargs, _ = kombu_loads(data, sent.content_type, sent.content_encoding, accept=accept)
                return args, kwargs

        self.request.update(self._embed)
        return arguments

    def prepare(self, task: Any) -> None:
        self._task = task
        self._request_class = self._bookkeeping.request_class(task)

    # -- the books ----------------------------------------------------------------------------------------------

    def begin(self, task: Any) -> bool:
        books = self._bookkeeping
        settle_reason = self._assigned.settle_reason
        if settle_reason is not None or self._headers.get("expires"):
            request = self._make_request()
            if settle_reason is not None:
                self._tell(self._settle, request, settle_reason)
                self._requeued = request.message.requeued
                return False
            if request.revoked():
                self._ending = ("revoked", None)
                return False
        if signals.task_received.receivers:
            signals.task_received.send(sender=books, request=self._make_request())
        if self._request_class is not Request:
            self._own = self._make_request()
            self._tell(self._own.on_accepted, os.getpid(), time.monotonic())
        elif books.eventer.enabled:
            self._observed = self._make_request()
            self._observed.send_event("task-started")
        books.client.quiet = books.quiet_states(task)
        return True

    def end(self, result: Any, seconds: float) -> None:
        books, info = self._bookkeeping, result[1]
        self._seconds = seconds
        if info is not None:
            self._ending = ending.of(result[0], info.retval)
        if self._own is not None:
            self._tell(books.announce, self._own, result, seconds)
            self._requeued = self._own.message.requeued
            return
        if info is not None and getattr(info, "state", None) == "REJECTED":
            request = self._make_request()
            request.on_failure(result[0], return_ok=True)
            self._requeued = request.message.requeued
            return
        if self._observed is None and books.eventer.enabled:
            # Somebody has come to listen meanwhile, whom the dispatcher has told that this runs.
            self._observed = self._make_request()
        if self._observed is not None:
            books.announce(self._observed, result, seconds)

    def on_soft_limit(self, seconds: float) -> None:
        if self._own is not None:
            self._tell(self._own.on_timeout, True, seconds)
        else:
            super().on_soft_limit(seconds)

    def fail(self, exc: BaseException) -> None:
        logger.error("Task %s[%s] cannot run: %s", self.name, self.task_id, exc)
        self._ending, self._seconds, self._requeued = ending.failed(exc), None, False
        self._bookkeeping.fail_unbegun(self.request, exc)

    def refuse(self, exc: BaseException) -> None:
        try:
            arguments = self.decode(())
            if self._sent.content_type is None:
                self.request["args"], self.request["kwargs"] = arguments()
        except Exception:  # its arguments may need the modules that are missing
            logger.warning("the arguments of %s cannot be read either", self.task_id)
        self.fail(exc)

    def report(self) -> Report:
        if self._requeued:
            return Requeue(self._assigned.seq, self._assigned.settle_reason is None)
        return Done(self._assigned.seq, self._seconds, *(self._ending or ()))

    def _make_request(self) -> Request:
        body = (self.request["args"], self.request["kwargs"], self._embed)
        delivery = Delivery(self._headers, body, self._delivery_info, self._properties)
        return self._bookkeeping.request(delivery, self._task)

    def _tell(self, method: Callable[..., None], *args: Any) -> None:
        """Tell a request, which may be of a project's own class; what it raises must not end the executor."""
        try:
            method(*args)
        except Exception:  # anything can go wrong in it
            logger.exception("the bookkeeping of task %s failed", self.task_id)

    def _settle(self, request: Request, settle_reason: str) -> None:
        self._ending = ("revoked", None)
        if settle_reason == "revoked":
            worker_state.revoked.add(request.id)
            request.revoked()
        elif settle_reason == "terminated":
            request._announce_revoked("terminated", True, signal.SIGTERM, False)
        elif settle_reason == "timeout":
            limit = request.time_limits[0] or request.task.time_limit
            exc = TimeLimitExceeded(limit)
            self._ending = ending.failed(exc)
            self._bookkeeping.time_out(request, exc, limit)
        elif settle_reason == "preempted" and (request.task.acks_late or request.app.conf.ray_rerun_preempted):
            request.message.requeued = True
        else:
            # Other backends are read by Celery alone, too, which does not have our classes.
            ours = isinstance(request.task.backend, RayBackend)
            lost = (InfeasibleError if settle_reason == "infeasible" and ours else WorkerLostError)(
                self._assigned.reason
            )
            einfo = ending.einfo_of(lost)
            self._ending = ending.failed(lost)
            if settle_reason == "lost":
                request.on_failure(einfo)
            else:
                # Not to be delivered again whatever the task's acks_late says.
                self._bookkeeping.fail_for_good(request, einfo)


class ChordMessage(Message):
    """The call of a chord's body, whose parts are all there.

    Arguments:
        bookkeeping: of the application.
        chord: what the dispatcher has sent.
    """

    def __init__(self, bookkeeping: Bookkeeping, chord: ChordAssignment) -> None:
        self._bookkeeping = bookkeeping
        self._chord = chord

    def open(self) -> None:
        OUTPUT.begin("", self._chord.group, "celery.chord")

    def run(self, runner: Runner) -> None:
        self._finish()

    def fail(self, exc: BaseException) -> None:
        """Raise the error: the executor ends, and another one calls the body."""
        raise exc

    def refuse(self, exc: BaseException) -> None:
        # The body is a message of its own, which fails then.
        self._finish()

    def _finish(self) -> None:
        chord = self._chord
        # The body is called once: whoever is given this after this process has died has not heard of a call either.
        self._bookkeeping.client.hold()
        self._bookkeeping.app.backend.chords.finish(
            chord.group, chord.callback, pickle.loads(chord.origin), chord.parts
        )

    def report(self) -> Report:
        return Done(self._chord.seq, None)
