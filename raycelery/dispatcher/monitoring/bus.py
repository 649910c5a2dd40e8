"""Queues and bindings of the ``ray://`` transport, as the dispatcher keeps them: for remote control and events only.

Nothing here lasts: it is what an AMQP broker keeps in transient, auto-deleted queues. Tasks do not pass through it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raycelery.protocol.bus_questions import Binding, BusMessage

logger = logging.getLogger(__name__)

#: Messages kept for a reader that does not keep up; the oldest go first. One may hold hundreds of events.
MOST_MESSAGES = 2_000
#: Messages that a reader is given at once.
BATCH = 64

Answer = Callable[[list[tuple[str, BusMessage]]], None]


@dataclass(slots=True, eq=False)
class _Queue:
    name: str
    #: Identifies the process that declared it, and with which it ends.
    owner: Any
    #: Seconds that it lasts while nobody reads it.
    expires: float | None
    used: float
    messages: deque[BusMessage] = field(default_factory=lambda: deque(maxlen=MOST_MESSAGES))
    overflowed: bool = False


@dataclass(slots=True, eq=False)
class _Reader:
    owner: Any
    queues: frozenset[str]
    answer: Answer


class Bus:
    """Queues by name, and bindings by exchange as ``kombu.transport.virtual`` writes them."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._bindings: dict[str, dict[Binding, None]] = {}
        self._readers: list[_Reader] = []
        #: Called with exchange and message when something is sent to a fanout exchange, before it is in the queues.
        self.on_fanout: Callable[[str, BusMessage], None] | None = None
        #: Called when an exchange has got a binding or lost its last one.
        self.on_bound: Callable[[str], None] | None = None

    # -- queues -------------------------------------------------------------------------------------------------

    def declare(self, queue: str, owner: Any, expires: float | None, now: float) -> None:
        """Make a queue; again is harmless."""
        if queue not in self._queues:
            self._queues[queue] = _Queue(queue, owner, expires, now)

    def has(self, queue: str) -> bool:
        """Return whether there is such a queue."""
        return queue in self._queues

    def size(self, queue: str) -> int:
        """Return how many messages wait in a queue."""
        found = self._queues.get(queue)
        return 0 if found is None else len(found.messages)

    def purge(self, queue: str) -> int:
        """Empty a queue, and return how many messages were in it."""
        size = self.size(queue)
        if size:
            self._queues[queue].messages.clear()
        return size

    def delete(self, queue: str) -> None:
        """Remove a queue and its bindings."""
        if self._queues.pop(queue, None) is None:
            return
        for exchange, table in list(self._bindings.items()):
            for binding in [binding for binding in table if binding[2] == queue]:
                self.unbind(exchange, binding)

    # -- bindings -----------------------------------------------------------------------------------------------

    def bind(self, exchange: str, binding: Binding) -> None:
        """Bind a queue to an exchange: routing key, pattern and queue."""
        table = self._bindings.setdefault(exchange, {})
        if binding not in table:
            table[binding] = None
            self._tell_bound(exchange)

    def unbind(self, exchange: str, binding: Binding) -> None:
        """Undo :meth:`bind`."""
        table = self._bindings.get(exchange, {})
        if table.pop(binding, False) is None and not table:
            del self._bindings[exchange]
            self._tell_bound(exchange)

    def table(self, exchange: str) -> list[Binding]:
        """Return the bindings of an exchange."""
        return list(self._bindings.get(exchange, ()))

    def _tell_bound(self, exchange: str) -> None:
        if self.on_bound is not None:
            self.on_bound(exchange)

    # -- messages -----------------------------------------------------------------------------------------------

    def put(self, queue: str, message: BusMessage) -> None:
        """Put a message into a queue; where there is none, nobody wants it."""
        found = self._queues.get(queue)
        if found is None:
            return
        if len(found.messages) == MOST_MESSAGES and not found.overflowed:
            found.overflowed = True
            logger.warning("the reader of %s does not keep up: its oldest messages are dropped", queue)
        found.messages.append(message)
        for reader in self._readers:
            if queue in reader.queues:
                self._readers.remove(reader)
                reader.answer(self._take(reader.queues))
                break

    def fanout(self, exchange: str, message: BusMessage) -> None:
        """Put a message into all queues of an exchange."""
        if self.on_fanout is not None:
            self.on_fanout(exchange, message)
        for _, _, queue in self.table(exchange):
            self.put(queue, message)

    def _take(self, queues: Iterable[str]) -> list[tuple[str, BusMessage]]:
        taken: list[tuple[str, BusMessage]] = []
        for name in queues:
            messages = self._queues[name].messages if name in self._queues else deque[BusMessage]()
            while messages and len(taken) < BATCH:
                taken.append((name, messages.popleft()))
        return taken

    def read(self, queues: Iterable[str], owner: Any, now: float, answer: Answer) -> Callable[[], None]:
        """Call ``answer`` with the messages of some queues, as soon as there are any.

        Returns:
            What to call when the reader does not wait any longer: it is answered with nothing.
        """
        reader = _Reader(owner, frozenset(queues), answer)
        for name in reader.queues & self._queues.keys():
            self._queues[name].used = now
        taken = self._take(reader.queues)
        if taken:
            answer(taken)
        else:
            self._readers.append(reader)

        def give_up() -> None:
            if reader in self._readers:
                self._readers.remove(reader)
                answer([])

        return give_up

    # -- ends ---------------------------------------------------------------------------------------------------

    def gone(self, owner: Any) -> None:
        """Remove the queues of a process that has gone."""
        self._readers = [reader for reader in self._readers if reader.owner is not owner]
        for queue in [queue.name for queue in self._queues.values() if queue.owner is owner]:
            self.delete(queue)

    def expire(self, now: float) -> None:
        """Remove the queues that nobody has read for as long as they last."""
        read = {name for reader in self._readers for name in reader.queues}
        for queue in list(self._queues.values()):
            if queue.name in read:
                queue.used = now
            elif queue.expires is not None and now - queue.used > queue.expires:
                self.delete(queue.name)
