"""Runs one message through Celery's tracer, and through Celery's request for whatever did not go well.

Celery's ``trace_task`` decides states, retries, callbacks and signals; ``celery.worker.request.Request`` decides what
becomes of a message that was revoked, expired, timed out, rejected or lost with its executor. See
https://docs.celeryq.dev/en/stable/internals/app-overview.html.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import celery
import kombu.message
from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.exceptions import NotRegistered, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu.compression import decompress
from kombu.serialization import loads as kombu_loads
from kombu.serialization import prepare_accept_content
from kombu.utils.encoding import safe_repr

from raycelery.app.backend import RayBackend
from raycelery.app.consuming import request_class
from raycelery.client.connection import Client
from raycelery.errors import LEAVING, InfeasibleError, TaskNotRegistered
from raycelery.executor import ending
from raycelery.executor.ending import Ending
from raycelery.executor.eventer import Eventer
from raycelery.executor.loading import Tasks
from raycelery.executor.output import OUTPUT
from raycelery.serialization import values

logger = logging.getLogger(__name__)

_HOSTNAME = f"celery@{socket.gethostname()}"
#: For most messages: a generator made and run for nothing is a twentieth of what the executor spends on one.
_UNLIMITED = contextlib.nullcontext()
#: It is annotated in part only.
_KombuMessage: Any = kombu.message.Message


def hostname() -> str:
    """Return the node name that requests carry, in Celery's form."""
    return _HOSTNAME


class _Message(_KombuMessage):  # type: ignore[misc]
    """A message that was taken and decoded; the dispatcher keeps account of it, so nothing is to be acknowledged."""

    def __init__(
        self, headers: dict[str, Any], body: Any, delivery: dict[str, Any], properties: dict[str, Any]
    ) -> None:
        super().__init__(
            delivery_tag=headers["id"], headers={**headers, "compression": None}, properties=properties,
            delivery_info=delivery,
        )  # fmt: skip
        self.headers = headers
        self.body = self._decoded_cache = body

    def ack(self, multiple: bool = False) -> None:
        """Note that it was acknowledged; nothing depends on it."""
        self._state = "ACK"

    def reject(self, requeue: bool = False) -> None:
        """Refuse: the dispatcher does not wait for it.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "in direct mode a message is rejected by raising celery.exceptions.Reject in its task"
        )

    def requeue(self) -> None:
        """Refuse; see :meth:`reject`."""
        self.reject(requeue=True)


class Runner:
    """Runs the messages of one application in this process.

    Arguments:
        app: the loaded application.
        client: the executor's connection; its ``sending`` keeps time limits from cutting a frame in two.
        eventer: takes Celery's events.
    """

    def __init__(self, app: celery.Celery, client: Client, eventer: Eventer) -> None:
        self.app = app
        self._eventer = eventer
        self.tasks = Tasks(app)
        self._client = client
        self._accept = prepare_accept_content(app.conf.accept_content)
        #: Id of the message that is running, and the thread that runs messages.
        self.current: str | None = None
        self.thread = threading.get_ident()
        self._quiet: dict[str, tuple[str, ...]] = {}
        #: The class of requests, by task; of the message that is running its request, where the class is its own.
        self._classes: dict[Any, Any] = {}
        self._own: Request | None = None
        #: How the last message ended, unless it succeeded.
        self.ended: Ending | None = None

    def run(self, payload: Any, settle_reason: str | None, reason: str, deliveries: int) -> tuple[str, float | None]:
        """Run one message, or do Celery's bookkeeping for one that met with ``settle_reason``.

        Returns:
            "done" or "requeue", and the seconds it ran, None where its task was not called; ``ended`` tells how, unless
            it succeeded.
        """
        self.ended = None
        if settle_reason == "chord":
            OUTPUT.begin("", payload[0], "celery.chord")
        try:
            return self._take(payload, settle_reason, reason, deliveries)
        finally:
            OUTPUT.end()

    def _take(self, payload: Any, settle_reason: str | None, reason: str, deliveries: int) -> tuple[str, float | None]:
        if settle_reason == "chord":
            self.app.backend.finish_chord(*payload)
            return "done", None
        headers, body, content_type, encoding, delivery, properties, module, code = pickle.loads(payload)
        OUTPUT.begin(properties.get("log_to"), headers["id"], headers.get("shadow") or headers["task"])
        self.current = headers["id"]
        headers["hostname"] = _HOSTNAME
        delivery_info = {
            "exchange": delivery[0],
            "routing_key": delivery[1],
            "priority": delivery[2],
            "redelivered": deliveries > 0,
        }
        request: dict[str, Any] = {
            **headers,
            "delivery_info": delivery_info,
            "properties": properties,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "is_eager": False,
            "args": (),
            "kwargs": {},
        }
        try:
            # First of all what follows the task: it is to hear of the failure of all the rest.
            embed, arguments = self._decode(body, content_type, encoding, headers)
            request.update(embed)
            task = self.tasks.find(headers["task"], module, code)
            self._class_of(task)
            args, kwargs = arguments()
            request.update(args=args, kwargs=kwargs)
        except BaseException as exc:  # whatever keeps a message from running is its failure, and ends no executor
            if isinstance(exc, KeyboardInterrupt) or hasattr(exc, "ray_terminate_msg"):
                raise  # Ray ends this process
            self._fail(request, exc)
            return "done", None
        try:
            return self._run(headers, request, task, embed, settle_reason, reason)
        except (Exception, *LEAVING):
            raise
        except BaseException as exc:  # raised by a handler of the end of its task
            self._fail(request, exc)
            return "done", None
        finally:
            self.current = None

    def _run(
        self,
        headers: dict[str, Any],
        request: dict[str, Any],
        task: Any,
        embed: dict[str, Any],
        settle_reason: str | None,
        reason: str,
    ) -> tuple[str, float | None]:
        task_id, args, kwargs = headers["id"], request["args"], request["kwargs"]
        delivery_info, properties = request["delivery_info"], request["properties"]
        kind = self._class_of(task)
        if settle_reason is not None or headers.get("expires"):
            message = _Message(headers, (args, kwargs, embed), delivery_info, properties)
            celery_request, outcome = self._request(message, task)
            if settle_reason is not None:
                self._tell(self._settle, celery_request, settle_reason, reason)
                return outcome[0], None
            if celery_request.revoked():
                self.ended = ("revoked", None)
                return "done", None
        if signals.task_received.receivers:
            message = _Message(headers, (args, kwargs, embed), delivery_info, properties)
            signals.task_received.send(sender=self, request=self._request(message, task)[0])
        observed: Request | None = None
        if kind is Request and self._eventer.enabled:
            message = _Message(headers, (args, kwargs, embed), delivery_info, properties)
            observed = self._request(message, task)[0]
            observed.send_event("task-started")
        if kind is not Request:
            self._own, outcome = self._request(
                _Message(headers, (args, kwargs, embed), delivery_info, properties), task
            )
            self._tell(self._own.on_accepted, os.getpid(), time.monotonic())
        limits = headers.get("timelimit") or (None, None)
        soft = limits[1] or task.soft_time_limit
        began = time.monotonic()
        try:
            self._client.quiet = self._quiet_states(task)
            with self.soft_limit(soft, task.name) if soft else _UNLIMITED:
                result = task.__trace__(task_id, args, kwargs, request)
        finally:
            self._client.quiet = ()
            self.current = None
            own, self._own = self._own, None
        ran = time.monotonic() - began
        info = result[1]
        if info is not None:
            self.ended = ending.of(result[0], info.retval)
        if own is not None:
            self._tell(self._announce, own, result, ran)
            return outcome[0], ran
        if info is not None and getattr(info, "state", None) == "REJECTED":
            message = _Message(headers, (args, kwargs, embed), delivery_info, properties)
            celery_request, outcome = self._request(message, task)
            celery_request.on_failure(result[0], return_ok=True)
            return outcome[0], ran
        if observed is None and self._eventer.enabled:
            # Somebody has come to listen meanwhile, whom the dispatcher has told that this runs.
            observed = self._request(_Message(headers, (args, kwargs, embed), delivery_info, properties), task)[0]
        if observed is not None:
            self._announce(observed, result, ran)
        return "done", ran

    def _class_of(self, task: Any) -> Any:
        kind = self._classes.get(task)
        if kind is None:
            kind = self._classes[task] = request_class(task)
        return kind

    def _tell(self, method: Callable[..., None], *args: Any) -> None:
        """Tell a request, which may be of a project's own class; what it raises must not end the executor."""
        try:
            method(*args)
        except Exception:  # anything can go wrong in it
            logger.exception("the bookkeeping of task %s failed", self.current)

    def _announce(self, request: Request, result: Any, ran: float) -> None:
        """Send the event of a message's end, by reporting it as Celery's pool does to the request."""
        if result[1] is None:
            request.on_success((0, result[3], ran))
        elif isinstance(result[0].exception, MemoryError):
            # For Celery's request it would be the end of the worker.
            request.send_event("task-failed", exception=safe_repr(result[0].exception), traceback=result[0].traceback)
        else:
            request.on_success((1, result[0], ran))

    def _quiet_states(self, task: Any) -> tuple[str, ...]:
        """Return the final states that no handler follows, so that they may leave with the report of the message."""
        if signals.task_success.receivers or signals.task_postrun.receivers or signals.task_failure.receivers:
            return ()
        quiet = self._quiet.get(task.name)
        if quiet is None:
            loud = any(task_has_custom(task, name) for name in ("on_success", "on_failure", "after_return"))
            quiet = self._quiet[task.name] = () if loud else (states.SUCCESS, states.FAILURE)
        return quiet

    def _decode(
        self, body: Any, content_type: str | None, encoding: str | None, headers: dict[str, Any]
    ) -> tuple[dict[str, Any], Callable[[], tuple[Any, Any]]]:
        """Return what follows the task, and what loads its arguments."""
        if content_type is None:
            return values.open_body(body)
        embed, body = values.open_encoded(body)

        def arguments() -> tuple[Any, Any]:
            data = decompress(body, headers["compression"]) if headers.get("compression") else body
            args, kwargs, _ = kombu_loads(data, content_type, encoding, accept=self._accept)
            return args, kwargs

        return embed, arguments

    def _request(self, message: _Message, task: Any) -> tuple[Request, list[str]]:
        outcome = ["done"]

        def on_reject(log: Any, errors: Any, requeue: bool = False) -> None:
            if requeue:
                outcome[0] = "requeue"

        request: Request = self._class_of(task)(
            message,
            on_ack=lambda *args, **kwargs: None,
            on_reject=on_reject,
            hostname=_HOSTNAME,
            eventer=self._eventer,
            app=self.app,
            task=task,
            body=message.body,
            decoded=True,
        )
        return request, outcome

    def _settle(self, request: Request, settle_reason: str, reason: str) -> None:
        self.ended = ("revoked", None)
        if settle_reason == "revoked":
            worker_state.revoked.add(request.id)
            request.revoked()
        elif settle_reason == "terminated":
            request._announce_revoked("terminated", True, signal.SIGTERM, False)
        elif settle_reason == "timeout":
            limit = request.time_limits[0] or request.task.time_limit
            exc = TimeLimitExceeded(limit)
            self.ended = ending.failed(exc)
            request.on_timeout(False, limit)
            if celery.VERSION < (5, 7):
                self._follow_timeout(request, exc)
        else:
            kind = InfeasibleError if settle_reason == "infeasible" and self._ours(request) else WorkerLostError
            try:
                raise kind(reason)
            except WorkerLostError as exc:
                einfo = ExceptionInfo()
                self.ended = ending.failed(exc)
            if settle_reason == "lost":
                request.on_failure(einfo)
            else:
                # Not to be delivered again whatever the task's acks_late says.
                self._fail_request(request, einfo)

    def _ours(self, request: Request) -> bool:
        """Return whether who reads the result has our classes: other backends are read by Celery alone, too."""
        return isinstance(request.task.backend, RayBackend)

    def _fail_request(self, request: Request, einfo: ExceptionInfo) -> None:
        exc = einfo.exception
        exc = getattr(exc, "exc", exc)
        context = request._context
        self.app.backend.mark_as_failure(
            request.id, exc, einfo.traceback, request=context, store_result=request.store_errors
        )
        request.task.on_failure(exc, request.id, request.args, request.kwargs, einfo)
        self._tell_of_failure(request, exc, einfo)

    def _tell_of_failure(self, request: Request, exc: BaseException, einfo: ExceptionInfo) -> None:
        signals.task_failure.send(
            sender=request.task, task_id=request.id, exception=exc, args=request.args, kwargs=request.kwargs,
            traceback=einfo.traceback, einfo=einfo,
        )  # fmt: skip
        request.send_event("task-failed", exception=safe_repr(exc), traceback=einfo.traceback)

    def _follow_timeout(self, request: Request, exc: TimeLimitExceeded) -> None:
        """Do what ``on_timeout`` leaves to ``on_failure`` in Celery before 5.7, whose pool calls both."""
        task = request.task
        if celery.VERSION >= (5, 5) and task.acks_late and not task.acks_on_failure_or_timeout:
            request.reject(requeue=True)
            return
        try:
            raise exc
        except TimeLimitExceeded:
            self._tell_of_failure(request, exc, ExceptionInfo())

    def _fail(self, request: dict[str, Any], exc: BaseException) -> None:
        logger.error("Task %s[%s] cannot run: %s", request["task"], request["id"], exc)
        self.ended = ending.failed(exc)
        fail(self.app, request, exc)
        self._eventer.send("task-failed", uuid=request["id"], exception=safe_repr(exc), traceback="")
        if isinstance(exc, NotRegistered):
            signals.task_unknown.send(sender=self.app, message=None, exc=exc, name=request["task"], id=request["id"])

    @contextlib.contextmanager
    def soft_limit(self, seconds: float, name: str) -> Iterator[None]:
        """Raise ``SoftTimeLimitExceeded`` in what is done within, if that takes so long."""

        def on_timer(number: int, frame: FrameType | None) -> None:
            if self._client.sending:
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                return
            if self._own is not None:
                self._tell(self._own.on_timeout, True, seconds)
            else:
                logger.warning("Soft time limit (%ss) exceeded for %s[%s]", seconds, name, self.current)
            raise SoftTimeLimitExceeded(seconds)

        before = signal.signal(signal.SIGALRM, on_timer)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def fail(app: celery.Celery, request: dict[str, Any], exc: BaseException) -> None:
    """Record the failure of a message that cannot even begin: its state, its chord's, its errbacks."""
    if isinstance(exc, TaskNotRegistered) and not isinstance(app.backend, RayBackend):
        exc = NotRegistered(*exc.args)  # for readers that have Celery's classes only
    try:
        raise exc
    except BaseException:
        einfo = ExceptionInfo()
    app.backend.mark_as_failure(
        request["id"], exc, einfo.traceback, request=Context(request), state=states.FAILURE,
        store_result=not request.get("ignore_result"),
    )  # fmt: skip


class Unloadable:
    """Stands in for :class:`Runner` where the application cannot be loaded: fails every message with the reason.

    Arguments:
        app: a bare application of the same name, whose backend the failures go to.
        error: why the real one cannot be loaded.
    """

    def __init__(self, app: celery.Celery, error: Exception) -> None:
        self.app = app
        self._error = error
        self.current: str | None = None
        self.thread = threading.get_ident()
        self.ended: Ending = ending.failed(error)
        self.tasks = SimpleNamespace(learn=lambda codes: None, set_time_limits=lambda limits: None)

    def run(self, payload: Any, settle_reason: str | None, reason: str, deliveries: int) -> tuple[str, float | None]:
        """Fail the message."""
        if settle_reason == "chord":
            self.app.backend.finish_chord(*payload)
            return "done", None
        headers, body, content_type, _, delivery, properties, _, _ = pickle.loads(payload)
        OUTPUT.begin(properties.get("log_to"), headers["id"], headers["task"])
        request = {**headers, "delivery_info": {"routing_key": delivery[1]}, "properties": properties}
        try:
            if content_type is None:
                embed, arguments = values.open_body(body)
                request.update(embed)
                request["args"], request["kwargs"] = arguments()
            else:
                request.update(values.open_encoded(body)[0])
        except Exception:  # its arguments may need the modules that are missing
            logger.warning("the arguments of %s cannot be read either", headers["id"])
        logger.error("Task %s[%s] cannot run: %s", headers["task"], headers["id"], self._error)
        OUTPUT.end()
        fail(self.app, request, self._error)
        return "done", None
