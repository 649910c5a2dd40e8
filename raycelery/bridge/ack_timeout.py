"""Messages that take longer than RabbitMQ waits for an acknowledgement.

RabbitMQ closes the channel of whoever holds a message for longer than its ``consumer_timeout``, see
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout. So a message that is held for half as long is
acknowledged early and kept durably until it is done: a copy of it goes to a queue of this bridge's own, is taken from
there at once and held on a connection of its own, and only then is the original acknowledged. Every half timeout a new
copy takes the place of the one before. If the bridge ends, however it does, RabbitMQ gets the copy back and hands it to
the queue that the message came from: the bridge's own lets nothing lie and dead-letters to there. It is then like any
message that is delivered again: it takes part in the run that goes on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from amqp import AMQPError

from raycelery.bridge.sources import queue_of

logger = logging.getLogger(__name__)

#: Names of the queues that bridges keep messages in begin so.
PREFIX = "raycelery.kept."
#: Says in a copy's headers which it is.
_NUMBER = "raycelery-kept"
#: Milliseconds that a copy may lie in the bridge's queue, and that this queue may be there without its bridge.
_LIE = 2_000
_UNUSED = 60_000
#: Seconds that RabbitMQ has for each answer, and that pass after it had none.
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 30.0
_ERRORS = (OSError, AMQPError)
#: Of a message's properties, those of its journey so far, and those that are passed on by themselves.
_NOT_COPIED = frozenset({"expiration", "content_type", "content_encoding", "application_headers", "priority"})


def was_kept(headers: Mapping[str, Any]) -> bool:
    """Return whether a message comes from a bridge that kept it, so that it may run already."""
    deaths = headers.get("x-death")
    return isinstance(deaths, list) and any(
        isinstance(death, dict) and str(death.get("queue")).startswith(PREFIX) for death in deaths
    )


@dataclass(eq=False)
class _Kept:
    """A message that is kept: Celery's request, its queue, and the copy that is held now, by RabbitMQ's tag."""

    request: Any
    queue: str
    tag: int | None = None
    #: When the copy was made, by `time.monotonic`.
    since: float = field(default_factory=time.monotonic)


class Keeper:
    """Keeps the messages of a bridge.

    Arguments:
        app: the worker's application.
        timeout: RabbitMQ's ``consumer_timeout`` in seconds.
    """

    def __init__(self, app: Any, timeout: float) -> None:
        self._app = app
        self._patience = timeout / 2
        #: Seconds between looks.
        self.seconds = timeout / 8
        #: When a message was first seen.
        self._seen: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._kept: dict[Any, _Kept] = {}
        #: Those whose copy went back with a lost connection, and comes as a message of its own.
        self._lost: WeakSet[Any] = WeakSet()
        #: Copies that were sent and have not come yet, by number.
        self._coming: dict[str, _Kept] = {}
        #: Queues that are there and consumed.
        self._queues: set[str] = set()
        self._connection: Any = None
        self._channel: Any = None
        self._not_before = 0.0

    def look(self, channel: Any, requests: Iterable[Any]) -> None:
        """Keep what has been held for long.

        Arguments:
            channel: by which the worker gets its messages now; what came by another one is lost already.
            requests: all that the worker holds.
        """
        now = time.monotonic()
        due = []
        requests = set(requests)
        for request in [request for request in self._kept if request not in requests]:
            # The worker dropped it with its connection, for it had not begun.
            self._reject(self._kept[request], requeue=True)
        for request in requests:
            kept = self._kept.get(request)
            lost = kept is None and (request.message.channel is not channel or request in self._lost)
            if request.acknowledged or lost:
                continue
            since = self._seen.setdefault(request, now) if kept is None else kept.since
            if now - since >= self._patience:
                due.append(request)
        if now < self._not_before:
            return
        try:
            if self._connection is not None:
                self._hear(0)
            for request in due:
                self._keep(request)
            deadline = now + _ANSWER_SECONDS
            while self._coming and time.monotonic() < deadline:
                self._hear(0.1)
            if self._coming:
                raise TimeoutError(f"no answer in {_ANSWER_SECONDS:g} s")
        except _ERRORS as exc:
            # What was kept is back in its queue now.
            logger.warning("messages of long tasks cannot be kept, so RabbitMQ will deliver them again: %s", exc)
            self._not_before = now + _PAUSE_SECONDS
            self._disconnect()

    # -- the connection -----------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        if self._channel is None:
            self._connection = self._app.connection_for_read(
                transport_options={"confirm_publish": True}, connect_timeout=_ANSWER_SECONDS
            )
            self._connection.connect()
            # Not that of a connection before: what went back to that may come to us once more, and would be for others.
            self._name = uuid.uuid4().hex
            self._channel = self._connection.channel()
        return self._channel

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._lost.update(self._kept)
        self._kept.clear()
        self._coming.clear()
        self._queues.clear()
        if connection is not None:
            try:
                connection.collect(socket_timeout=1)
            except OSError as exc:
                logger.debug("closing the connection of kept messages: %s", exc)

    def _hear(self, seconds: float) -> None:
        try:
            self._connection.heartbeat_check()
            self._connection.drain_events(timeout=seconds or 0.001)
        except TimeoutError:
            pass

    def _home(self, queue: str) -> str:
        """Return this bridge's queue for messages of another one, which is there and consumed from then on."""
        channel = self._connect()
        name = f"{PREFIX}{queue}.{self._name}"
        if name not in self._queues:
            arguments = {
                "x-message-ttl": _LIE,
                "x-expires": _UNUSED,
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

    def _keep(self, request: Any) -> None:
        kept = self._kept.get(request)
        if kept is None:
            kept = _Kept(request, queue_of(request))
        home = self._home(kept.queue)
        number = uuid.uuid4().hex
        self._coming[number] = kept
        self._publish(request.message, home, {_NUMBER: number})

    def _publish(self, message: Any, queue: str, headers: Mapping[str, Any], exchange: str = "") -> None:
        # kombu has decompressed the body; RabbitMQ would see a circle in what is not a new message's.
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

    def _on_copy(self, copy: Any) -> None:
        kept = self._coming.pop((copy.headers or {}).get(_NUMBER, ""), None)
        if kept is None or kept.request.acknowledged:
            # It came too late: its message has been held all along, or is done.
            self._channel.basic_ack(copy.delivery_tag)
            return
        request, before = kept.request, kept.tag
        kept.tag, kept.since = copy.delivery_tag, time.monotonic()
        if before is not None:
            self._channel.basic_ack(before)
            return
        logger.info("task %s runs long: its message is acknowledged early and kept until the task ends", request.id)
        self._kept[request] = kept
        request._on_ack(logger, request.connection_errors)
        request._on_ack = lambda log, errors: self._done(kept)
        request._on_reject = lambda log, errors, requeue=False: self._reject(kept, requeue=requeue)

    # -- what becomes of them: called instead of the message's own methods ---------------------------------------

    def _done(self, kept: _Kept) -> None:
        self._give_up(kept, lambda channel: channel.basic_ack(kept.tag))

    def _reject(self, kept: _Kept, requeue: bool) -> None:
        def reject(channel: Any) -> None:
            if requeue:
                channel.basic_reject(kept.tag, requeue=False)
                return
            arguments = self._arguments_of(kept.queue)
            exchange = arguments.get("x-dead-letter-exchange")
            if exchange is not None:
                where = arguments.get("x-dead-letter-routing-key") or kept.queue
                self._publish(kept.request.message, where, {}, exchange)
            channel.basic_ack(kept.tag)

        self._give_up(kept, reject)

    def _give_up(self, kept: _Kept, act: Callable[[Any], Any]) -> None:
        if self._kept.pop(kept.request, None) is None:
            return  # the connection was lost, and RabbitMQ has it
        try:
            act(self._channel)
        except _ERRORS as exc:
            logger.warning(
                "RabbitMQ was not told that task %s has ended, and will deliver it again: %s", kept.request.id, exc
            )
            self._disconnect()

    def close(self) -> None:
        """Return what is still kept to its queue."""
        left = list(self._kept.values())
        for kept in left:
            self._reject(kept, requeue=True)
        # Queues that had something to return expire by themselves, when they are done with that.
        for name in [] if left else self._queues:
            try:
                self._channel.queue_delete(name, if_empty=True)
            except _ERRORS as exc:
                logger.debug("the queue %s is left to expire: %s", name, exc)
                break
        self._disconnect()
