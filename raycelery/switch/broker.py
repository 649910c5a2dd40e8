"""The broker that a project in direct mode still names: what it holds of the queues, taken and given back.

By kombu's own transports, see https://docs.celeryq.dev/projects/kombu/en/stable/userguide/connections.html. Messages
that wait for their time in RabbitMQ are in the queues of its delayed delivery, see
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import celery
from kombu.common import Broadcast
from kombu.messaging import Producer
from kombu.transport.native_delayed_delivery import calculate_routing_key
from kombu.utils.imports import symbol_by_name

from raycelery.errors import OptionError

#: Seconds that a connection to the broker may take.
CONNECT_SECONDS = 5.0
#: The queues of RabbitMQ's delayed delivery, and what routing keys there begin with: a digit and a dot for each.
DELAYED = [f"celery_delayed_{level}" for level in range(28)]
_DIGITS = 2 * len(DELAYED)


@dataclass
class Outgoing:
    """A message that is to be published.

    Arguments:
        queue: the queue.
        body: encoded.
        headers: Celery's and the project's own.
        properties: among them content type and encoding, and the priority.
        due: seconds until it is due; 0: now.
    """

    queue: str
    body: Any
    headers: dict[str, Any]
    properties: dict[str, Any]
    due: float


@dataclass
class Left:
    """What a broker holds of one queue.

    Arguments:
        queue: its name.
        ready: messages that wait for a consumer.
        unacked: messages that a consumer has taken and not acknowledged (Redis; RabbitMQ tells nobody).
        delayed: messages that wait for their time in RabbitMQ; in Redis these are unacknowledged.
    """

    queue: str
    ready: int = 0
    unacked: int = 0
    delayed: int = 0

    @property
    def all(self) -> int:
        """All of them."""
        return self.ready + self.unacked + self.delayed


def queues_of(app: Any, named: Iterable[str] = ()) -> list[str]:
    """Return the queues of an application: those it consumes, and those that its routes and tasks name.

    Arguments:
        app: the application.
        named: only these; none: all.
    """
    if names := list(dict.fromkeys(named)):
        return names
    found = [name for name, queue in app.amqp.queues.items() if not isinstance(queue, Broadcast)]
    routes = app.conf.task_routes
    for layer in routes if isinstance(routes, (list, tuple)) else [routes]:
        if isinstance(layer, dict):
            found += [route.get("queue") if isinstance(route, dict) else route for route in layer.values()]
    found += [getattr(task, "queue", None) for task in app._tasks.values()]
    return list(dict.fromkeys(getattr(one, "name", one) for one in found if one))


def names_broker(app: Any) -> bool:
    """Return whether a broker is named that is neither Ray's nor in memory."""
    return bool(app.conf.broker_read_url) and not str(app.conf.broker_read_url).startswith(("ray:", "memory:"))


def connection(app: Any, *, write: bool = False) -> Any:
    """Return a connection to the project's broker, not yet established.

    Arguments:
        app: an application in whatever mode.
        write: whether it is to publish.

    Raises:
        OptionError: no broker is named.
    """
    if not names_broker(app):
        raise OptionError("the application names no broker: set broker_url to the one that may still hold messages")
    url = app.conf.broker_write_url if write else app.conf.broker_read_url
    made = celery.Celery._connection(
        app, url, connect_timeout=CONNECT_SECONDS, transport_options={"confirm_publish": True} if write else None
    )
    if made.transport.driver_type == "redis":
        made.transport_options.setdefault("socket_connect_timeout", CONNECT_SECONDS)
    return made


@contextlib.contextmanager
def opened(app: Any, *, write: bool = False) -> Iterator[Broker]:
    """Connect with the project's broker, for a while.

    Arguments:
        app: the application.
        write: whether it is to publish.

    Raises:
        OptionError: no broker is named.
        kombu.exceptions.OperationalError: it does not answer.
    """
    with connection(app, write=write) as made:
        made.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
        # By name, as it needs the client library of Redis.
        redis = made.transport.driver_type == "redis"
        yield (symbol_by_name("raycelery.switch.redis_broker:RedisBroker") if redis else Broker)(app, made)


class Broker:
    """A broker as kombu knows it; used by one thread.

    Arguments:
        app: the application.
        connection: established.
    """

    #: Whether it tells how many messages are unacknowledged, and gives back those of consumers that are gone.
    keeps_unacked = False
    #: Messages that are published at a time: what is confirmed may be published again after a crash.
    most_at_once = 1

    def __init__(self, app: Any, connection: Any) -> None:
        self.app = app
        self.connection = connection
        self._channel: Any = None
        #: How many things were in queues that are no messages, by the place where they are kept now.
        self.aside: Counter[str] = Counter()
        #: Names of queues that the broker does not have.
        self._absent: set[str] = set()
        #: Those that were declared, as they are published to.
        self._declared: set[str] = set()

    @property
    def channel(self) -> Any:
        """An open channel."""
        if self._channel is None or not getattr(self._channel, "is_open", True):
            self._channel = self.connection.channel()
        return self._channel

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What it raises when it is out of reach."""
        return (OSError, *self.connection.connection_errors)

    def ready(self, queue: str) -> int:
        """Return how many messages of a queue wait for a consumer."""
        try:
            return int(self.channel.queue_declare(queue=queue, passive=True).message_count)
        except self.connection.channel_errors:
            self._channel = None  # the broker closes a channel that asks for a queue that is not there
            self._absent.add(queue)
            return 0

    def left(self, queues: Iterable[str]) -> list[Left]:
        """Return what it holds of some queues, and what waits for its time, which may be of any."""
        found = [Left(queue, self.ready(queue)) for queue in queues]
        delayed = sum(self.ready(queue) for queue in self.waiting_rooms())
        return [*found, *([Left("(delayed)", delayed=delayed)] if delayed else [])]

    def waiting_rooms(self) -> list[str]:
        """Return the queues in which messages of any queue wait for their time."""
        return DELAYED if self.connection.transport.driver_type == "amqp" and self._has(DELAYED[0]) else []

    def _has(self, queue: str) -> bool:
        self.ready(queue)
        return queue not in self._absent

    def fetch(self, queue: str, most: int) -> list[Any]:
        """Take messages off a queue; they are the caller's until they are acknowledged or given back."""
        if not self._has(queue):
            self._absent.discard(queue)
            return []
        found: list[Any] = []
        while len(found) < most and (message := self.channel.basic_get(queue, no_ack=False)) is not None:
            found.append(self.channel.message_to_python(message))
        return found

    def acknowledge(self, messages: Iterable[Any]) -> None:
        """Have the broker drop messages that were fetched."""
        for message in messages:
            message.ack()

    def give_back(self, messages: Iterable[Any]) -> None:
        """Put messages that were fetched back to where they were."""
        for message in reversed(list(messages)):
            message.requeue()

    def publish(self, messages: list[Outgoing], batch: bytes) -> None:
        """Put messages into their queues, and return once the broker has them.

        Arguments:
            messages: what is to be published.
            batch: the same when they are published again, since it is not known whether they were.
        """
        for message in messages:
            queue = self.app.amqp.queues[message.queue].bind(self.channel)
            if message.queue not in self._declared:
                queue.declare()
                self._declared.add(message.queue)
            exchange, routing_key = "", message.queue
            if int(message.due) and queue.exchange.type != "direct" and self.waiting_rooms():
                # As Celery publishes it, so that no worker has to keep it until it is due.
                exchange, routing_key = DELAYED[-1], calculate_routing_key(int(message.due), queue.routing_key)
            properties = dict(message.properties)
            Producer(self.channel).publish(
                message.body,
                routing_key=routing_key,
                exchange=exchange,
                headers=message.headers,
                mandatory=True,
                **properties,
            )

    def take_over(self, queues: Iterable[str], but: Iterable[Any]) -> int:
        """Put what consumers have taken that are gone back into the queues, and count it; here the broker does so.

        Arguments:
            queues: those that are meant.
            but: messages that were fetched here.
        """
        return 0

    def consumers(self) -> int | None:
        """Return how many workers are connected, as far as can be told; None where it cannot."""
        return None


def destination(message: Any) -> tuple[str, str] | None:
    """Return exchange and routing key of a message of delayed delivery as they are when it is due; None for others."""
    routing_key = str(message.delivery_info.get("routing_key", ""))
    digits, rest = routing_key[:_DIGITS], routing_key[_DIGITS:]
    if len(digits) == _DIGITS and set(digits[1::2]) == {"."} and set(digits[::2]) <= {"0", "1"}:
        return str(message.delivery_info.get("exchange", "")), rest
    return None
