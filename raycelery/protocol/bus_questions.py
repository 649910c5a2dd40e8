"""What is asked of the bus, which carries remote control and events, see :mod:`raycelery.control.transport`."""

from __future__ import annotations

from typing import Any

from raycelery.protocol.asking import Question

#: Routing key, pattern and queue, as ``kombu.transport.virtual`` writes them.
Binding = tuple[str, str | None, str]
#: A message of ``kombu.transport.virtual``; a body that is bytes stays so.
BusMessage = dict[str, Any]


class OpenBus(Question[None], frozen=True):
    """Say how the application names its exchanges of remote control and events.

    Arguments:
        control_exchange: of remote control.
        event_exchange: of events.
        event_serializer: what events are encoded with.
    """

    control_exchange: str
    event_exchange: str
    event_serializer: str


class DeclareQueue(Question[None], frozen=True):
    """Make a queue, which ends with the connection.

    Arguments:
        queue: its name.
        expires: seconds that it lasts while nobody reads it; None: no end.
    """

    queue: str
    expires: float | None


class HasQueue(Question[bool], frozen=True):
    """Whether there is a queue of that name, of the bus or of tasks.

    Arguments:
        queue: its name.
    """

    queue: str


class QueueSize(Question[int], frozen=True):
    """How many messages wait in a queue, of the bus or of tasks.

    Arguments:
        queue: its name.
    """

    queue: str


class PurgeQueue(Question[int], frozen=True):
    """Empty a queue, of the bus or of tasks, and count what was in it.

    Arguments:
        queue: its name.
    """

    queue: str


class DeleteQueue(Question[None], frozen=True):
    """Remove a queue of the bus and its bindings.

    Arguments:
        queue: its name.
    """

    queue: str


class Bind(Question[None], frozen=True):
    """Bind a queue to an exchange.

    Arguments:
        exchange: its name.
        binding: routing key, pattern and queue.
    """

    exchange: str
    binding: Binding


class Unbind(Question[None], frozen=True):
    """Undo :class:`Bind`.

    Arguments:
        exchange: its name.
        binding: routing key, pattern and queue.
    """

    exchange: str
    binding: Binding


class Bindings(Question[list[Binding]], frozen=True):
    """The bindings of an exchange.

    Arguments:
        exchange: its name.
    """

    exchange: str


class Put(Question[None], frozen=True):
    """Put a message into a queue of the bus.

    Arguments:
        queue: its name.
        message: the message.
    """

    queue: str
    message: BusMessage


class Fanout(Question[None], frozen=True):
    """Put a message into all queues of an exchange.

    Arguments:
        exchange: its name.
        message: the message.
    """

    exchange: str
    message: BusMessage


class Read(Question[list[tuple[str, BusMessage]]], frozen=True):
    """Messages of some queues, as soon as there are any: queue and message.

    Arguments:
        queues: their names.
        seconds: to wait for; then there are none.
    """

    queues: list[str]
    seconds: float


BusQuestion = (
    OpenBus | DeclareQueue | HasQueue | QueueSize | PurgeQueue | DeleteQueue | Bind | Unbind | Bindings | Put | Fanout
    | Read
)  # fmt: skip
