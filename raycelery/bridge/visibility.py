"""Leases: Redis gives a message to somebody else after ``visibility_timeout``, unless it is told that work goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)

#: How often a lease is renewed before it would end.
TIMES = 4


class Leases:
    """Renews the leases of a channel's messages: those that run, and those that wait for their time.

    Arguments:
        channel: kombu's, of its Redis transport.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.seconds = max(0.1, channel.visibility_timeout / TIMES)

    def adopt(self, requests: Iterable[Any]) -> None:
        """Take messages over that came on a connection which is lost: Redis knows them by a tag of their own."""
        delivered = self._channel.qos._delivered
        for request in requests:
            message = getattr(request, "_message", None)
            if message is not None and not request.acknowledged:
                message.channel = self._channel
                delivered[message.delivery_tag] = message
        if delivered:
            self.renew()

    def renew(self) -> None:
        """Renew them all."""
        channel = self._channel
        tags = list(channel.qos._delivered)
        if not tags or channel.closed:
            return
        now = time.time()
        try:
            with channel.conn_or_acquire() as client:
                # Only those that are there: one may be acknowledged by now.
                client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True)
        except channel.connection_errors as exc:
            logger.warning("could not renew the leases of %d messages: %s", len(tags), exc)
