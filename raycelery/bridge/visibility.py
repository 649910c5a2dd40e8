"""Extends the visibility timeout of Redis's messages while the bridge still has them.

kombu's Redis transport hands a message to another worker once it has been unacknowledged for ``visibility_timeout``
seconds, see https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)

#: The timeout is extended so many times before it would end.
EXTENSIONS = 4


class VisibilityTimeout:
    """Extends the timeout of all unacknowledged messages of a channel: those that run, and those that wait for an ETA.

    Arguments:
        channel: of kombu's Redis transport.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        #: Seconds between two calls of :meth:`extend`.
        self.interval = max(0.1, channel.visibility_timeout / EXTENSIONS)

    def take_over(self, requests: Iterable[Any]) -> None:
        """Acknowledge by this channel what came by one that is lost; delivery tags stay valid on Redis.

        Arguments:
            requests: Celery's ``Request`` objects, or None for calls that have none.
        """
        delivered = self._channel.qos._delivered
        for request in requests:
            message = getattr(request, "_message", None)
            if message is not None and not request.acknowledged:
                message.channel = self._channel
                delivered[message.delivery_tag] = message
        if delivered:
            self.extend()

    def extend(self) -> None:
        """Have the timeout of all unacknowledged messages begin anew; a lost connection is logged, not raised."""
        channel = self._channel
        tags = list(channel.qos._delivered)
        if not tags or channel.closed:
            return
        now = time.time()
        try:
            with channel.conn_or_acquire() as client:
                # XX: one that was acknowledged meanwhile must not be added again.
                client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True)
        except channel.connection_errors as exc:
            logger.warning("could not extend the visibility timeout of %d messages: %s", len(tags), exc)
