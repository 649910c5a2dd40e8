"""Redis as kombu uses it: what it holds, fetched without a gap in which anything could be lost.

kombu takes a message off its queue and notes it as unacknowledged in two steps; here one script does both, as the
bridge's does. What a consumer has taken is in one hash for all, by
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from raycelery.bridge.redis_transport import FETCH
from raycelery.switch.broker import Broker, Left, Outgoing

#: Seconds for which it is noted what was published.
NOTED_SECONDS = 86_400


class RedisBroker(Broker):
    """Redis, as kombu uses it."""

    keeps_unacked = True
    most_at_once = 50

    def _key(self, name: str) -> str:
        return f"{self.channel.global_keyprefix}{name}"

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """Yield a client that takes keys as they are, without kombu's prefix."""
        import redis

        yield redis.Redis(connection_pool=self.channel.pool)

    def left(self, queues: Iterable[str]) -> list[Left]:
        """Return what it holds of some queues."""
        names = list(queues)
        unacked = Counter(queue for queue, _ in self._unacked(names))
        return [Left(queue, self.channel._size(queue), unacked[queue]) for queue in names]

    def waiting_rooms(self) -> list[str]:
        return []

    def _unacked(self, queues: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield queue and tag of what was taken from some queues and not acknowledged."""
        wanted = set(queues)
        with self._client() as client:
            for tag, raw in client.hscan_iter(self._key(self.channel.unacked_key), count=200):
                try:
                    _, exchange, routing_key = json.loads(raw)
                except ValueError:
                    continue  # another program's
                names = wanted.intersection(self.channel._lookup(exchange, routing_key))
                if names:
                    yield names.pop(), bytes_to_str(tag)

    def fetch(self, queue: str, most: int) -> list[Any]:
        channel = self.channel
        keys = [self._key(channel._q_for_pri(queue, step)) for step in channel.priority_steps]
        with self._client() as client:
            fetched = f"raycelery.fetched.{uuid.uuid4().hex}"
            answer = client.eval(
                FETCH, 3 + len(keys), self._key(channel.unacked_key), self._key(channel.unacked_index_key),
                self._key(fetched), *keys, most, time.time(), math.ceil(channel.visibility_timeout),
            )  # fmt: skip
        found = []
        for place, noted, raw in zip(answer[::3], answer[1::3], answer[2::3], strict=True):
            if not noted:
                self._put_aside(keys[int(place) - 1], raw)
                continue
            payload = loads(bytes_to_str(raw))
            found.append(channel.message_to_python(payload))
        return found

    def _put_aside(self, key: str, raw: bytes) -> None:
        """Keep what is in a queue and is no message of Celery's."""
        with self._client() as client:
            client.rpush(f"{key}.unreadable", raw)
        self.aside[f"{key}.unreadable"] += 1

    def publish(self, messages: list[Outgoing], batch: bytes) -> None:
        """Put messages into their queues, all or none of them, and once, however often it is tried in a day."""
        channel = self.channel
        noted = self._key(f"raycelery.returned.{hashlib.sha256(batch).hexdigest()}")
        with self._client() as client, client.pipeline(transaction=True) as pipe:
            if client.exists(noted):
                return
            pipe.set(noted, 1, ex=NOTED_SECONDS)
            for message in messages:
                properties = dict(message.properties)
                made = channel.prepare_message(
                    message.body,
                    properties.pop("priority"),
                    properties.pop("content_type"),
                    properties.pop("content_encoding"),
                    message.headers,
                    properties,
                )
                channel._inplace_augment_message(made, "", message.queue)
                priority = channel._get_message_priority(made, reverse=False)
                pipe.lpush(self._key(channel._q_for_pri(message.queue, priority)), dumps(made))
            pipe.execute()

    def acknowledge(self, messages: Iterable[Any]) -> None:
        tags = [message.delivery_tag for message in messages]
        if tags:
            with self._client() as client, client.pipeline() as pipe:
                pipe.zrem(self._key(self.channel.unacked_index_key), *tags)
                pipe.hdel(self._key(self.channel.unacked_key), *tags).execute()

    def give_back(self, messages: Iterable[Any]) -> None:
        for message in reversed(list(messages)):
            self.channel.qos.restore_by_tag(message.delivery_tag)

    def take_over(self, queues: Iterable[str], but: Iterable[Any]) -> int:
        """Put what consumers have taken that are gone back into the queues, and count it.

        What was taken is not said to be whose, so no consumer may be connected: see :meth:`consumers`.

        Arguments:
            queues: those that are meant.
            but: messages that were fetched here.
        """
        own = {message.delivery_tag for message in but}
        tags = [tag for _, tag in self._unacked(queues) if tag not in own]
        for tag in tags:
            self.channel.qos.restore_by_tag(tag)
        return len(tags)

    def consumers(self) -> int | None:
        """Return how many workers listen to remote control: those that a ping reaches, be they busy or not.

        None where the project has turned remote control off.
        """
        if not self.app.conf.worker_enable_remote_control:
            return None
        mailbox = self.app.control.mailbox
        ping: dict[str, Any] = {
            "method": "ping",
            "arguments": {},
            "destination": None,
            "pattern": None,
            "matcher": None,
        }
        message = self.channel.prepare_message(
            json.dumps(ping), 0, "application/json", "utf-8", headers={"clock": 0, "expires": time.time() + 1},
            properties={"delivery_mode": 2},
        )  # fmt: skip
        self.channel._inplace_augment_message(message, mailbox.exchange.name, "")
        with self._client() as client:
            topic = self.channel._get_publish_topic(mailbox.exchange.name, "")
            return int(client.publish(self._key(topic), json.dumps(message)))
