"""kombu's in-memory transport, whose consumers are woken by messages; kombu's own looks once in a second."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, memory, virtual

#: The scheme under which it is registered.
SCHEME = "raycelery-memory"

#: Exchanges with their bindings, and queues, of each broker, by virtual host.
_brokers: dict[str, tuple[virtual.BrokerState, dict[str, Any]]] = {}
_numbers = itertools.count(1)

#: Guards the two counts, and wakes consumers when one changes.
_changed = threading.Condition()
#: Messages that were put into any queue.
_messages = 0
#: Calls of :func:`interrupt`.
_interruptions = 0


def _tell() -> None:
    global _messages
    with _changed:
        _messages += 1
        _changed.notify_all()


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """Keep a broker of its own, and yield its URL; what it holds in the end is gone."""
    name = f"/{next(_numbers)}"
    _brokers[name] = virtual.BrokerState(), {}
    try:
        yield f"{SCHEME}://localhost/{name}"
    finally:
        del _brokers[name]


def interrupt() -> None:
    """Have everyone who waits for messages return, as if the time were over."""
    global _interruptions
    with _changed:
        _interruptions += 1
        _changed.notify_all()


class Channel(memory.Channel):
    """kombu's in-memory channel, with the queues of its broker, which tells of what is put into them."""

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)  # type: ignore[no-untyped-call]
        self.queues = _brokers[connection.client.virtual_host][1]

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)  # type: ignore[no-untyped-call]
        _tell()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str | None = None, **kwargs: Any) -> None:
        super()._put_fanout(exchange, message, routing_key, **kwargs)  # type: ignore[no-untyped-call]
        _tell()


class Transport(memory.Transport):
    """kombu's in-memory transport, with one broker per virtual host.

    Follows https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.memory.html.
    """

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)  # type: ignore[no-untyped-call]
        self.state = _brokers[client.virtual_host][0]

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver a message.

        Raises:
            TimeoutError: there was none within ``timeout`` seconds, or :func:`interrupt` was called.
        """
        assert self.cycle is not None
        deadline = None if timeout is None else monotonic() + timeout
        interruptions = _interruptions
        while True:
            messages = _messages
            with contextlib.suppress(Empty):
                self.cycle.get(self._deliver, timeout=timeout)
                return
            with _changed:
                while _messages == messages:
                    left = None if deadline is None else deadline - monotonic()
                    if _interruptions != interruptions or (left is not None and left <= 0):
                        raise TimeoutError
                    _changed.wait(left)


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
