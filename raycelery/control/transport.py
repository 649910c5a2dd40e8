"""The kombu transport ``ray://``: remote control and events by way of the application's dispatcher.

A small ``kombu.transport.virtual`` transport, see https://docs.celeryq.dev/projects/kombu/en/stable/reference/. It
carries what Celery's tools exchange with workers. Tasks take another way, see :mod:`raycelery.app.producer`; of their
queues one can ask the length here, and purge them.
"""

from __future__ import annotations

import time
from collections import deque
from queue import Empty
from typing import Any, Protocol, TypeVar

from kombu.transport import virtual as kombu_virtual

from raycelery import names
from raycelery.client import session
from raycelery.errors import DispatcherUnreachable, MessageError
from raycelery.protocol import bus_questions
from raycelery.protocol.asking import Question

# kombu is annotated in part, and some of it too narrowly.
virtual: Any = kombu_virtual

A = TypeVar("A")
#: Seconds after which a process that waits for messages asks anew, so that a lost dispatcher is noticed.
WAIT_SECONDS = 5.0


class Side(Protocol):
    """How a transport reaches the bus: over the connection to the dispatcher, or in the dispatcher itself."""

    def call(self, question: Question[A]) -> A:
        """Carry out an operation of the bus."""


class Remote:
    """The bus, from a process of the application.

    Arguments:
        app: whose dispatcher it is.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def is_of_tasks(self, queue: str) -> bool:
        """Return whether it is one of the application's queues, from which tasks go to executors."""
        return queue in self._app.amqp.queues

    def call(self, question: Question[A]) -> A:
        """Carry out an operation of the bus."""
        answer: A = self._app.client.call(question)
        return answer

    def open(self) -> None:
        """Connect, and say what the application's exchanges are called.

        Raises:
            DispatcherUnreachable: there is no cluster to connect to, or none answers.
        """
        session.look(self._app)
        conf = self._app.conf
        self.call(bus_questions.OpenBus(f"{conf.control_exchange}.pidbox", conf.event_exchange, conf.event_serializer))


class Channel(virtual.Channel):  # type: ignore[misc]
    """A channel whose queues the dispatcher keeps."""

    supports_fanout = True
    # Messages travel in frames that carry bytes as they are.
    body_encoding = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._auto_delete: set[str] = set()

    @property
    def _bus(self) -> Side:
        side: Side = self.connection.side
        return side

    def _is_of_tasks(self, queue: str) -> bool:
        return isinstance(self._bus, Remote) and self._bus.is_of_tasks(queue)

    def _see_that_it_may_be_read(self, queue: str) -> None:
        if self._is_of_tasks(queue):
            raise MessageError(
                f"the tasks of queue {queue!r} cannot be taken from it: in direct mode they go to executors; "
                "keep the broker with ray_mode='bridge' to have consumers of your own"
            )

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Read a queue.

        Raises:
            MessageError: it is a queue of tasks.
        """
        self._see_that_it_may_be_read(queue)
        return super().basic_consume(queue, *args, **kwargs)

    def basic_get(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Return a message of a queue, or None.

        Raises:
            MessageError: it is a queue of tasks.
        """
        self._see_that_it_may_be_read(queue)
        return super().basic_get(queue, *args, **kwargs)

    def _new_queue(self, queue: str, auto_delete: bool = False, arguments: Any = None, **kwargs: Any) -> None:
        if self._is_of_tasks(queue):
            return  # the dispatcher has it
        expires = (arguments or {}).get("x-expires")
        self._bus.call(bus_questions.DeclareQueue(queue, None if expires is None else expires / 1000))
        if auto_delete:
            self._auto_delete.add(queue)

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Stop reading a queue; one that was to be deleted then is."""
        queue = self._tag_to_queue.get(consumer_tag)
        super().basic_cancel(consumer_tag)
        if queue in self._auto_delete:
            self._auto_delete.discard(queue)
            try:
                self.queue_delete(queue)
            except DispatcherUnreachable:
                pass  # and the queue with it

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self._is_of_tasks(queue) or self._bus.call(bus_questions.HasQueue(queue))

    def _size(self, queue: str) -> int:
        return self._bus.call(bus_questions.QueueSize(queue))

    def _purge(self, queue: str) -> int:
        return self._bus.call(bus_questions.PurgeQueue(queue))

    def after_reply_message_received(self, queue: str) -> None:
        """Do nothing: the queue was deleted when its reader left."""

    # What kombu notes of bindings in each process would outlast the queues, which others may delete.

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Bind a queue to an exchange."""
        self._bus.call(bus_questions.Bind(*self._binding(queue, exchange, routing_key, arguments)))

    def queue_unbind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Undo it."""
        self._bus.call(bus_questions.Unbind(*self._binding(queue, exchange, routing_key, arguments)))

    def _binding(self, queue: str, exchange: str | None, routing_key: str, arguments: Any) -> tuple[str, Any]:
        exchange = exchange or "amq.direct"
        return exchange, self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue and its bindings."""
        if not (if_empty and self._size(queue)):
            self._bus.call(bus_questions.DeleteQueue(queue))

    def get_table(self, exchange: str) -> list[bus_questions.Binding]:
        """Return the bindings of an exchange."""
        return self._bus.call(bus_questions.Bindings(exchange))

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        if self._is_of_tasks(queue):
            raise MessageError(
                f"a message put into queue {queue!r} by hand would not be run: in direct mode tasks are sent with "
                "apply_async or send_task"
            )
        self._bus.call(bus_questions.Put(queue, message))

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **kwargs: Any) -> None:
        self._bus.call(bus_questions.Fanout(exchange, message))

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        found = self._bus.call(bus_questions.Read([queue], 0.0))
        if not found:
            raise Empty
        return found[0][1]


class Transport(virtual.Transport):  # type: ignore[misc]
    """The transport; ``transport_options`` hold the application as ``app``, or in the dispatcher a ``side``."""

    Channel = Channel
    can_parse_url = True
    driver_type = "ray"
    driver_name = "ray"
    connection_errors = (*virtual.Transport.connection_errors, DispatcherUnreachable)
    implements = virtual.Transport.implements.extend(exchange_type=frozenset(["direct", "topic", "fanout"]))

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        options = client.transport_options
        self.side: Side = options["side"] if "side" in options else Remote(_app(options))
        #: Messages that have come and are to be delivered.
        self._arrived: deque[tuple[str, Any]] = deque()

    def driver_version(self) -> str:
        """Return raycelery's version."""
        return names.VERSION

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL, which holds no secret: ``ray://`` and the application's name."""
        return uri

    def establish_connection(self) -> Any:
        """Connect to the dispatcher.

        Raises:
            DispatcherUnreachable: none answers.
        """
        if isinstance(self.side, Remote):
            self.side.open()
        return super().establish_connection()

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message, waiting for it for at most ``timeout`` seconds; it is pushed, nothing is polled.

        Raises:
            TimeoutError: none came.
            DispatcherUnreachable: the dispatcher went away; queues must be declared anew.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._arrived:
                queue, message = self._arrived.popleft()
                if queue in self._callbacks:
                    self._deliver(message, queue)
                    return
            left = WAIT_SECONDS if deadline is None else min(WAIT_SECONDS, deadline - time.monotonic())
            queues = [queue for channel in self.channels for queue in channel._active_queues]
            read = self.side.call(bus_questions.Read(queues, max(0.0, left)))
            self._arrived.extend(read)
            if not self._arrived and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("no message came in time")


def _app(options: Any) -> Any:
    if "app" in options:
        return options["app"]
    from celery import current_app

    return current_app._get_current_object()
