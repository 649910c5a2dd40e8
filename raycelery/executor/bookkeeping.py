"""Celery's books of messages in direct mode: its ``Request`` records what did not go well, and sends events.

``celery.worker.request.Request`` decides what becomes of a message that was revoked, expired, timed out, rejected or
lost with its executor, see https://docs.celeryq.dev/en/stable/reference/celery.worker.request.html.
"""

from __future__ import annotations

from typing import Any

import celery
import kombu.message
from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.exceptions import NotRegistered, TimeLimitExceeded
from celery.worker.request import Request
from kombu.utils.encoding import safe_repr

from raycelery.app.backend import RayBackend
from raycelery.app.consuming import request_class
from raycelery.client.connection import Client
from raycelery.errors import TaskNotRegistered
from raycelery.executor.ending import einfo_of
from raycelery.executor.eventer import Eventer
from raycelery.executor.hostname import HOSTNAME

#: It is annotated in part only.
_KombuMessage: Any = kombu.message.Message


class Delivery(_KombuMessage):  # type: ignore[misc]
    """A message that was taken and decoded; the dispatcher keeps account of it, so nothing is to be acknowledged.

    Arguments:
        headers: Celery's.
        body: args, kwargs, and what follows the task.
        delivery_info: exchange, routing key and so on.
        properties: as on a broker.
    """

    def __init__(
        self, headers: dict[str, Any], body: Any, delivery_info: dict[str, Any], properties: dict[str, Any]
    ) -> None:
        super().__init__(
            delivery_tag=headers["id"], headers={**headers, "compression": None}, properties=properties,
            delivery_info=delivery_info,
        )  # fmt: skip
        self.headers = headers
        self.body = self._decoded_cache = body
        #: Whether its request wants it to be delivered again.
        self.requeued = False

    def ack(self, multiple: bool = False) -> None:
        """Note that it was acknowledged; nothing depends on it."""
        self._state = "ACK"

    def on_ack(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing where its request acknowledges it."""

    def on_reject(self, log: Any, errors: Any, requeue: bool = False) -> None:
        """Note whether it is to be delivered again, where its request rejects it."""
        self.requeued = self.requeued or requeue

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


class Bookkeeping:
    """What the books of all messages of an application have in common.

    Arguments:
        app: the application.
        client: the executor's connection.
        eventer: takes Celery's events.
    """

    def __init__(self, app: celery.Celery, client: Client, eventer: Eventer) -> None:
        self.app = app
        self.client = client
        self.eventer = eventer
        self._classes: dict[Any, Any] = {}
        self._quiet: dict[str, tuple[str, ...]] = {}

    def request_class(self, task: Any) -> Any:
        """Return the class of a task's requests, which may be the project's own."""
        kind = self._classes.get(task)
        if kind is None:
            kind = self._classes[task] = request_class(task)
        return kind

    def request(self, delivery: Delivery, task: Any) -> Request:
        """Make Celery's request of a message."""
        request: Request = self.request_class(task)(
            delivery,
            on_ack=delivery.on_ack,
            on_reject=delivery.on_reject,
            hostname=HOSTNAME,
            eventer=self.eventer,
            app=self.app,
            task=task,
            body=delivery.body,
            decoded=True,
        )
        return request

    def quiet_states(self, task: Any) -> tuple[str, ...]:
        """Return the final states that no handler follows, so that they may leave with the report of the message."""
        if signals.task_success.receivers or signals.task_postrun.receivers or signals.task_failure.receivers:
            return ()
        quiet = self._quiet.get(task.name)
        if quiet is None:
            loud = any(task_has_custom(task, name) for name in ("on_success", "on_failure", "after_return"))
            quiet = self._quiet[task.name] = () if loud else (states.SUCCESS, states.FAILURE)
        return quiet

    # -- ends ---------------------------------------------------------------------------------------------------

    def announce(self, request: Request, result: Any, seconds: float) -> None:
        """Send the event of a message's end, by reporting it as Celery's pool does to the request.

        Arguments:
            result: what Celery's tracer returned.
            seconds: that it ran.
        """
        if result[1] is None:
            request.on_success((0, result[3], seconds))
        elif isinstance(result[0].exception, MemoryError):
            # For Celery's request it would be the end of the worker.
            request.send_event("task-failed", exception=safe_repr(result[0].exception), traceback=result[0].traceback)
        else:
            request.on_success((1, result[0], seconds))

    def fail_for_good(self, request: Request, einfo: ExceptionInfo) -> None:
        """Record a failure that no setting turns into another delivery."""
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

    def time_out(self, request: Request, exc: TimeLimitExceeded, limit: float) -> None:
        """Record that a hard time limit was exceeded, in seconds."""
        request.on_timeout(False, limit)
        if celery.VERSION >= (5, 7):
            return
        # What `on_timeout` leaves to `on_failure` in Celery before 5.7, whose pool calls both.
        task = request.task
        if celery.VERSION >= (5, 5) and task.acks_late and not task.acks_on_failure_or_timeout:
            request.reject(requeue=True)
            return
        self._tell_of_failure(request, exc, einfo_of(exc))

    def fail_unbegun(self, request: dict[str, Any], exc: BaseException) -> None:
        """Record the failure of a message that cannot even begin: its state, its chord's, its errbacks.

        Arguments:
            request: what Celery's tracer would be told of it.
            exc: why it cannot.
        """
        name, task_id, stored = request["task"], request["id"], exc
        if isinstance(exc, TaskNotRegistered) and not isinstance(self.app.backend, RayBackend):
            stored = NotRegistered(*exc.args)  # for readers that have Celery's classes only
        self.app.backend.mark_as_failure(
            task_id, stored, einfo_of(stored).traceback, request=Context(request), state=states.FAILURE,
            store_result=not request.get("ignore_result"),
        )  # fmt: skip
        self.eventer.send("task-failed", uuid=task_id, exception=safe_repr(exc), traceback="")
        if isinstance(exc, NotRegistered):
            signals.task_unknown.send(sender=self.app, message=None, exc=exc, name=name, id=task_id)
