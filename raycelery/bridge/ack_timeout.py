"""Messages that run longer than RabbitMQ waits for their acknowledgement.

RabbitMQ closes the channel of a consumer that holds a message for longer than ``consumer_timeout``, see
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout. So a message that has been held for half of that time
is replaced by a durable copy of it, and acknowledged early:

1. The copy is published to a queue of this bridge's own, its *copy queue*.
2. It is consumed from there at once, on a connection of its own, and held unacknowledged.
3. Only then is the original acknowledged.
4. Each half timeout a new copy takes the place of the one before.
5. When the task ends, the copy is acknowledged or rejected in place of the original.

If the bridge ends, however it does, RabbitMQ requeues the copy; the copy queue has a message TTL and dead-letters to
the queue that the message came from. There it is like any message that is delivered again: it joins the run that goes
on.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from amqp import AMQPError

from raycelery.bridge.sources import queue_of

logger = logging.getLogger(__name__)

#: Names of copy queues begin so.
PREFIX = "raycelery.kept."
#: Header of a copy: which one it is.
_COPY_ID = "raycelery-kept"
#: Milliseconds that a copy stays in the copy queue, and that this queue stays after its consumer has gone.
_MESSAGE_TTL = 2_000
_QUEUE_EXPIRES = 60_000
#: Seconds that RabbitMQ has for each answer, and seconds without another try after it gave none.
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS = 30.0
_ERRORS = (OSError, AMQPError)
#: Properties of a message that its copy does not have, or that are passed on as arguments.
_NOT_COPIED = frozenset({"expiration", "content_type", "content_encoding", "application_headers", "priority"})


def was_copied(headers: Mapping[str, Any]) -> bool:
    """Return whether a message comes from a bridge's copy queue, so that it may be running already."""
    deaths = headers.get("x-death")
    return isinstance(deaths, list) and any(
        isinstance(death, dict) and str(death.get("queue")).startswith(PREFIX) for death in deaths
    )


@dataclass(eq=False)
class _Copy:
    """The copy that is held in place of a message.

    Arguments:
        request: Celery's, of the message.
        queue: that the message came from.
        tag: delivery tag of the copy; None until it was delivered.
        since: when the copy was delivered, by `time.monotonic`.
    """

    request: Any
    queue: str
    tag: int | None = None
    since: float = field(default_factory=time.monotonic)


class AckTimeout:
    """Keeps the messages of a bridge from reaching RabbitMQ's acknowledgement timeout.

    Arguments:
        app: the worker's application.
        timeout: RabbitMQ's ``consumer_timeout`` in seconds.
        lock: guards this object and the acknowledgement of each request: with it held Celery is told of the end of a
            task, and acknowledges.
    """

    def __init__(self, app: Any, timeout: float, lock: threading.RLock) -> None:
        self._app = app
        self._lock = lock
        #: Seconds that a message may be held.
        self._longest = timeout / 2
        #: Seconds between two calls of :meth:`check`.
        self.interval = timeout / 8
        #: When each request was first seen, by `time.monotonic`.
        self._seen: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        #: By request.
        self._held: dict[Any, _Copy] = {}
        #: Requests whose copy was requeued with a lost connection: it comes as a message of its own.
        self._lost: WeakSet[Any] = WeakSet()
        #: Copies that were published and have not been delivered yet, by copy id.
        self._coming: dict[str, _Copy] = {}
        #: Copy queues that are declared and consumed on this connection.
        self._queues: set[str] = set()
        self._connection: Any = None
        self._channel: Any = None
        self._not_before = 0.0

    def check(self, channel: Any, requests: Iterable[Any]) -> None:
        """Replace by a copy each message that has been held for half of the timeout, and each copy as old as that.

        That RabbitMQ cannot be reached is logged, not raised.

        Arguments:
            channel: by which the worker consumes now; what came by another one is lost already.
            requests: Celery's requests of all messages that the worker holds.
        """
        with self._lock:
            now = time.monotonic()
            requests = set(requests)
            for request in [request for request in self._held if request not in requests]:
                # It had not begun when the worker's connection was lost, so that the worker dropped it.
                self._reject(self._held[request], requeue=True)
            due = [request for request in requests if self._is_due(request, channel, now)]
            if now < self._not_before:
                return
            try:
                if self._connection is not None:
                    self._drain_events(0)
                for request in due:
                    self._publish_copy(request)
                deadline = now + _ANSWER_SECONDS
                while self._coming and time.monotonic() < deadline:
                    self._drain_events(0.1)
                if self._coming:
                    raise TimeoutError(f"no answer in {_ANSWER_SECONDS:g} s")
            except _ERRORS as exc:
                logger.warning("messages of long tasks cannot be kept, so RabbitMQ will deliver them again: %s", exc)
                self._not_before = now + _RETRY_SECONDS
                self._disconnect()

    def _is_due(self, request: Any, channel: Any, now: float) -> bool:
        copy = self._held.get(request)
        lost = copy is None and (request.message.channel is not channel or request in self._lost)
        if request.acknowledged or lost:
            return False
        since = self._seen.setdefault(request, now) if copy is None else copy.since
        return now - since >= self._longest

    # -- the connection -----------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        if self._channel is None:
            self._connection = self._app.connection_for_read(
                transport_options={"confirm_publish": True}, connect_timeout=_ANSWER_SECONDS
            )
            self._connection.connect()
            # Another name for each connection: the copies that were requeued with the one before must not come back
            # to us, they are for the queues that they came from.
            self._name = uuid.uuid4().hex
            self._channel = self._connection.channel()
        return self._channel

    def _disconnect(self) -> None:
        """Close the connection: RabbitMQ requeues the copies that are held."""
        connection, self._connection, self._channel = self._connection, None, None
        self._lost.update(self._held)
        self._held.clear()
        self._coming.clear()
        self._queues.clear()
        if connection is not None:
            try:
                connection.collect(socket_timeout=1)
            except OSError as exc:
                logger.debug("closing the connection of kept messages: %s", exc)

    def _drain_events(self, seconds: float) -> None:
        try:
            self._connection.heartbeat_check()
            self._connection.drain_events(timeout=seconds or 0.001)
        except TimeoutError:
            pass

    def _copy_queue(self, queue: str) -> str:
        """Return the name of the copy queue for messages of a queue, which is declared and consumed from then on."""
        channel = self._connect()
        name = f"{PREFIX}{queue}.{self._name}"
        if name not in self._queues:
            arguments = {
                "x-message-ttl": _MESSAGE_TTL,
                "x-expires": _QUEUE_EXPIRES,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue,
            }
            kind = self._arguments_of(queue).get("x-queue-type")
            if kind:
                arguments["x-queue-type"] = kind
            channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments=arguments)
            channel.basic_consume(queue=name, callback=self._on_copy)
            self._queues.add(name)
        return name

    def _arguments_of(self, queue: str) -> Mapping[str, Any]:
        found = self._app.amqp.queues.get(queue)
        return (found.queue_arguments if found is not None else None) or {}

    # -- copies -------------------------------------------------------------------------------------------------

    def _publish_copy(self, request: Any) -> None:
        copy = self._held.get(request)
        if copy is None:
            copy = _Copy(request, queue_of(request))
        queue = self._copy_queue(copy.queue)
        copy_id = uuid.uuid4().hex
        self._coming[copy_id] = copy
        self._publish(request.message, queue, {_COPY_ID: copy_id})

    def _publish(self, message: Any, queue: str, headers: Mapping[str, Any], exchange: str = "") -> None:
        # kombu has decompressed the body. With its x-death, RabbitMQ would take the copy for one that goes in a circle.
        own = {name: value for name, value in message.headers.items() if name not in ("compression", "x-death")}
        channel = self._connect()
        channel.basic_publish(
            channel.prepare_message(
                message.body,
                priority=message.properties.get("priority"),
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers={**own, **headers},
                properties={name: value for name, value in message.properties.items() if name not in _NOT_COPIED},
            ),
            exchange=exchange,
            routing_key=queue,
            confirm_timeout=_ANSWER_SECONDS,
        )

    def _on_copy(self, message: Any) -> None:
        copy = self._coming.pop((message.headers or {}).get(_COPY_ID, ""), None)
        if copy is None or copy.request.acknowledged:
            # It came too late: the original is held still, or its task has ended.
            self._channel.basic_ack(message.delivery_tag)
            return
        request, before = copy.request, copy.tag
        copy.tag, copy.since = message.delivery_tag, time.monotonic()
        if before is not None:
            self._channel.basic_ack(before)
            return
        logger.info("task %s runs long: its message is acknowledged early and kept until the task ends", request.id)
        self._held[request] = copy
        request._on_ack(logger, request.connection_errors)
        request._on_ack = lambda log, errors: self._ack(copy)
        request._on_reject = lambda log, errors, requeue=False: self._reject(copy, requeue=requeue)

    # -- the end of a task: Celery's request calls these instead of the message's own methods ---------------------

    def _ack(self, copy: _Copy) -> None:
        with self._lock:
            self._settle(copy, lambda channel: channel.basic_ack(copy.tag))

    def _reject(self, copy: _Copy, requeue: bool) -> None:
        def reject(channel: Any) -> None:
            if requeue:
                # The copy queue dead-letters it to the queue that the message came from.
                channel.basic_reject(copy.tag, requeue=False)
                return
            arguments = self._arguments_of(copy.queue)
            exchange = arguments.get("x-dead-letter-exchange")
            if exchange is not None:
                routing_key = arguments.get("x-dead-letter-routing-key") or copy.queue
                self._publish(copy.request.message, routing_key, {}, exchange)
            channel.basic_ack(copy.tag)

        with self._lock:
            self._settle(copy, reject)

    def _settle(self, copy: _Copy, act: Callable[[Any], Any]) -> None:
        if self._held.pop(copy.request, None) is None:
            return  # the connection was lost, and RabbitMQ has requeued the copy
        try:
            act(self._channel)
        except _ERRORS as exc:
            logger.warning(
                "RabbitMQ was not told that task %s has ended, and will deliver it again: %s", copy.request.id, exc
            )
            self._disconnect()

    def close(self) -> None:
        """Return the messages whose copies are still held to their queues, and disconnect."""
        with self._lock:
            left = list(self._held.values())
            for copy in left:
                self._reject(copy, requeue=True)
            # A copy queue that has something to return expires by itself afterwards.
            for name in [] if left else self._queues:
                try:
                    self._channel.queue_delete(name, if_empty=True)
                except _ERRORS as exc:
                    logger.debug("the queue %s is left to expire: %s", name, exc)
                    break
            self._disconnect()
