"""Which queue each message came from.

Exchange and routing key do not tell: with a topic exchange, or where RabbitMQ delivers a message late, the routing key
is not the queue's name (https://www.rabbitmq.com/docs/exchanges). What was consumed tells: whoever asks a channel for
messages names the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Sources:
    """Notes on messages which queue they came from."""

    def __init__(self) -> None:
        #: The queue of the message that is being delivered; deliveries are one at a time.
        self._queue = ""

    def watch(self, channel: Any) -> None:
        """Know the queue of all that is consumed by a channel from now on.

        Arguments:
            channel: kombu's, of any transport; before the consumer begins to consume.
        """
        consume = channel.basic_consume

        def basic_consume(queue: str, *args: Any, callback: Callable[[Any], Any], **kwargs: Any) -> Any:
            def deliver(message: Any) -> Any:
                self._queue = queue
                return callback(message)

            return consume(queue, *args, callback=deliver, **kwargs)

        channel.basic_consume = basic_consume

    def note(self, message: Any) -> None:
        """Note it on the message that is being delivered."""
        message.raycelery_queue = self._queue


def queue_of(request: Any) -> str:
    """Return the name of the queue that the message of Celery's ``Request`` came from."""
    return str(getattr(getattr(request, "message", None), "raycelery_queue", ""))
