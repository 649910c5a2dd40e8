"""Celery's events, as the dispatcher publishes them while somebody listens.

Follows https://docs.celeryq.dev/en/stable/userguide/monitoring.html#event-reference. Events gather for a moment and
leave together, as those of Celery's workers do.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celery.events.event import Event, event_exchange
from celery.utils.time import utcoffset
from kombu.clocks import LamportClock
from kombu.entity import Exchange
from kombu.messaging import Producer

from raycelery.dispatcher import steady
from raycelery.protocol import messages

if TYPE_CHECKING:
    from raycelery.scheduler.model import Message

logger = logging.getLogger(__name__)

#: Seconds that task events wait for others, and how many leave together at most.
GATHER_SECONDS = 0.05
MOST_TOGETHER = 500


class Events:
    """Publishes events.

    Arguments:
        channel: where to, a channel of the ``ray://`` transport.
        name_of: returns the host name for a Ray node.
        clock: what puts events in order.
    """

    def __init__(self, channel: Any, name_of: Callable[[str], str], clock: LamportClock) -> None:
        self._channel = channel
        self._name_of = name_of
        self._clock = clock
        self._gathered: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.listening = False
        self.configure(event_exchange.name, "json")

    def configure(self, exchange: str, serializer: str) -> None:
        """Publish to this exchange from now on, in this serializer."""
        self._exchange = Exchange(exchange, type=event_exchange.type)
        self._producer = Producer(self._channel, exchange=self._exchange, serializer=serializer)

    def _event(self, kind: str, fields: Mapping[str, Any], node: str) -> dict[str, Any]:
        common = {"hostname": self._name_of(node), "utcoffset": utcoffset(), "pid": os.getpid()}
        event: dict[str, Any] = Event(kind, {**common, **fields}, clock=self._clock.forward())
        return event

    def worker(self, kind: str, node: str, fields: Mapping[str, Any]) -> None:
        """Send a worker's event: "online", "heartbeat" or "offline"."""
        self._publish(self._event(f"worker-{kind}", fields, node), f"worker.{kind}")

    def received(self, message: Message, node: str) -> None:
        """Send the event of a message that was submitted."""
        headers = messages.opened(message.payload).headers
        self.add(
            "task-received",
            {
                "uuid": message.id,
                "name": headers.shadow or message.task,
                "args": headers.argsrepr,
                "kwargs": headers.kwargsrepr,
                "root_id": headers.root_id,
                "parent_id": headers.parent_id,
                "retries": headers.retries or 0,
                "eta": headers.eta,
                "expires": headers.expires,
                "queue": message.queue,
                "timestamp": steady.wall(message.submitted),
            },
            node,
        )

    def add(self, kind: str, fields: Mapping[str, Any], node: str | None) -> None:
        """Send an event of a task, with others; a producer's, without a node, is complete as it is."""
        if not kind.startswith("task-"):
            # A program's own kind: receivers may have asked for its routing key.
            self._flush()
            self._publish(dict(fields), kind.replace("-", "."))
            return
        self._gathered.append(dict(fields) if node is None else self._event(kind, fields, node))
        if len(self._gathered) >= MOST_TOGETHER:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if gathered and self.listening:
            self._publish(gathered, "task.multi")

    def _publish(self, body: Any, routing_key: str) -> None:
        try:
            self._producer.publish(body, routing_key=routing_key, declare=[self._exchange], delivery_mode=1)
        except Exception as exc:  # a serializer may refuse what a task put into an event of its own
            logger.error("events were not sent: %s", exc)
