"""kombu's Redis transport, with messages fetched and acknowledged many at a time, and none lost in between.

kombu takes one message off its queue with BRPOP and notes it as unacknowledged in a second step, and acknowledges each
by itself: two round trips a message, and what was popped by a process that is killed before the second step is lost.
Here a script does both steps at once, for as many messages as there is room for. Only where the queues were found empty
is the next message awaited as kombu does it.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu import connection as kombu_connection
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

#: It is annotated in part only.
redis: Any = kombu_redis

logger = logging.getLogger(__name__)

#: Most messages fetched at once: queues that are served in turn should not wait long for theirs.
MOST = 64

#: Seconds that an acknowledgement waits for others to share its round trip.
ACK_SECONDS = 0.01

#: Lists of what was fetched with an answer that never came: the connection was lost meanwhile.
_lost: set[str] = set()

#: Takes up to ARGV[1] messages off the queues KEYS[4...] and notes them as unacknowledged at the time ARGV[2], in the
#: form that kombu does. A message that is none is returned all the same, with 0 where others have 1. KEYS[3] is, for
#: ARGV[3] seconds, the list of what was fetched last.
FETCH = """
local found, left = {}, tonumber(ARGV[1])
redis.call('DEL', KEYS[3])
for i = 4, #KEYS do
  while left > 0 do
    local raw = redis.call('RPOP', KEYS[i])
    if not raw then break end
    local noted = 0
    local ok, message = pcall(cjson.decode, raw)
    local properties = ok and type(message) == 'table' and message.properties
    local info = type(properties) == 'table' and properties.delivery_info
    if type(info) == 'table' and type(properties.delivery_tag) == 'string'
        and type(info.exchange) == 'string' and type(info.routing_key) == 'string' then
      local where = cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key)
      redis.call('ZADD', KEYS[2], ARGV[2], properties.delivery_tag)
      redis.call('HSET', KEYS[1], properties.delivery_tag, '[' .. raw .. ',' .. where .. ']')
      redis.call('RPUSH', KEYS[3], properties.delivery_tag)
      noted = 1
    end
    found[#found + 1] = i - 3
    found[#found + 1] = noted
    found[#found + 1] = raw
    left = left - 1
  end
end
redis.call('EXPIRE', KEYS[3], ARGV[3])
return found
"""


class QoS(redis.QoS):  # type: ignore[misc]
    """kombu's bookkeeping of unacknowledged messages, which knows what a script has noted already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted: set[str] = set()
        #: Acknowledgements that Redis has not heard of; when they are to be sent, by `time.monotonic`.
        self.acks: list[str] = []
        self.due: float | None = None
        self._client: Any = None

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag in self.noted:
            self.noted.discard(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self.acks.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def send_acks(self) -> None:
        """Tell Redis what was acknowledged."""
        if not self.acks:
            return
        # Without an event loop more are added by another thread meanwhile.
        acks = list(self.acks)
        if self._client is None:
            self._client = self.channel._create_client()
        with self._client.pipeline() as pipe:
            pipe.zrem(self.unacked_index_key, *acks).hdel(self.unacked_key, *acks).execute()
        del self.acks[: len(acks)]
        self.due = None

    def restore_unacked_once(self, stderr: Any = None) -> None:
        if self.channel.connection.client is None:
            # Celery may close a lost connection's transport before its channels, which then do not know where Redis is.
            # What is unacknowledged stays so: it runs, or its visibility timeout ends.
            self._on_collect.cancel()
            return
        try:
            self.send_acks()
        except self.channel.connection_errors as exc:
            logger.warning("%d acknowledgements did not reach Redis: %s", len(self.acks), exc)
        super().restore_unacked_once(stderr)


class Channel(redis.Channel):  # type: ignore[misc]
    """kombu's channel; ``room`` tells how many messages there is room for, ``idle`` whether none is being run."""

    QoS = QoS
    room: Callable[[], int] | None = None
    idle: Callable[[], bool] | None = None
    #: Whether the latest fetch found something, so that there may be more; one that comes alone says nothing.
    _found = False
    #: The keys that are being fetched from, None while one message is awaited.
    _fetching: list[str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetched_key = f"raycelery.fetched.{uuid.uuid4().hex}"

    def _brpop_start(self, timeout: float | None = None) -> None:
        if _lost:
            self._give_back_lost()
        room = self.room
        if not self._found or room is None or self.global_keyprefix or not self.ack_emulation:
            self._fetching = None
            super()._brpop_start(timeout)
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        keys = [self._q_for_pri(queue, pri) for pri in self.priority_steps for queue in queues]
        number = max(1, min(room(), MOST))
        self._fetching = keys
        self._in_poll = self.client.connection
        self._brpop_sent_at = None  # it is not one that waits
        self.client.connection.send_command(
            "EVAL", FETCH, 3 + len(keys), self.unacked_key, self.unacked_index_key, self._fetched_key, *keys,
            number, time.time(), math.ceil(self.visibility_timeout),
        )  # fmt: skip

    def _give_back_lost(self) -> None:
        """Put what was fetched with a lost connection back into its queues, before its visibility timeout ends."""
        with self.conn_or_acquire() as client:
            for key in list(_lost):
                tags = client.lrange(key, 0, -1)
                logger.info("connection lost: %d messages that were being fetched go back to their queues", len(tags))
                for tag in tags:
                    self.qos.restore_by_tag(bytes_to_str(tag), client=client)
                client.delete(key)
                _lost.discard(key)

    def _brpop_read(self, **options: Any) -> bool:
        keys = self._fetching
        found = self._read_one(**options) if keys is None else self._read_many(keys, **options)
        alone = keys is None and self.idle is not None and self.idle()
        self._found = bool(found) and not alone
        if not found:
            raise Empty
        for queue, raw, noted in found:
            self._queue_cycle.rotate(queue)
            self._deliver(queue, raw, noted)
        return True

    def _answer(self, command: str, **options: Any) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, command, **options)
        except self.connection_errors:
            # The next turn connects again.
            connection.disconnect()
            if command == "EVAL":
                _lost.add(self._fetched_key)
            raise
        finally:
            self._in_poll = None
            reauthenticate = getattr(self, "_flush_brpop_reauth", None)
            if reauthenticate is not None:
                reauthenticate()

    def _read_one(self, **options: Any) -> list[tuple[str, bytes, bool]]:
        answer = self._answer("BRPOP", **options)
        return [(self._queue_of(bytes_to_str(answer[0])), answer[1], False)] if answer else []

    def _read_many(self, keys: list[str], **options: Any) -> list[tuple[str, bytes, bool]]:
        answer = self._answer("EVAL", **options)
        parts = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return [(self._queue_of(keys[number - 1]), raw, bool(noted)) for number, noted, raw in parts]

    def _queue_of(self, key: str) -> str:
        return str(key.rsplit(self.sep, 1)[0])

    def _deliver(self, queue: str, raw: bytes, noted: bool) -> None:
        try:
            payload = loads(bytes_to_str(raw))
            message = self.Message(payload, channel=self)
            tag = message.delivery_tag
            if not isinstance(tag, str) or not {"exchange", "routing_key"} <= message.delivery_info.keys():
                raise ValueError("it lacks a delivery tag, or the exchange that it was sent to")
        except Exception as exc:  # it may be anything, and nobody could ever read it
            logger.critical("dropped an entry of queue %r that is not a message (%r): %.1024r", queue, exc, raw)
            return
        if noted:
            self.qos.noted.add(tag)
        self.connection._deliver(payload, queue)


class Poller(redis.MultiChannelPoller):  # type: ignore[misc]
    """kombu's poller, which sends acknowledgements, many at a time."""

    #: The worker's event loop, if it has one.
    loop: Any = None

    def on_poll_start(self) -> None:
        now = time.monotonic()
        for qos in self._unsent():
            if self.loop is None or len(qos.acks) >= MOST or (qos.due is not None and qos.due <= now):
                qos.send_acks()
            elif qos.due is None:
                qos.due = now + ACK_SECONDS
                # Only to wake the loop, which then comes by here.
                self.loop.call_later(ACK_SECONDS, _nothing)
        super().on_poll_start()

    def _unsent(self) -> list[QoS]:
        return [c._qos for c in list(self._channels) if c._qos is not None and c._qos.acks]


def _nothing() -> None:
    """Do nothing."""


class Transport(redis.Transport):  # type: ignore[misc]
    """The transport; its messages and keys are those of kombu's, so that stock workers share its queues."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have the event loop watch for messages."""
        self.cycle.loop = loop
        super().register_with_event_loop(connection, loop)


class SentinelChannel(Channel, redis.SentinelChannel):  # type: ignore[misc]
    """The channel to whichever Redis the sentinels name."""


class SentinelTransport(Transport, redis.SentinelTransport):  # type: ignore[misc]
    """The transport where sentinels name the Redis."""

    Channel = SentinelChannel


#: Ours, by what kombu has for a URL.
_OURS = {redis.Transport: Transport, redis.SentinelTransport: SentinelTransport}


class Connection(kombu_connection.Connection):
    """kombu's connection, with the transports above in place of kombu's own.

    Everything about the URL stays kombu's affair: schemes (``rediss`` is TLS, also where no option says so), sockets,
    and lists of URLs of which the next is taken when one fails.
    """

    def get_transport_cls(self) -> Any:
        """Return the class of the transport; one that a project chose itself is not replaced."""
        transport: Any = super().get_transport_cls()  # type: ignore[no-untyped-call]
        return _OURS.get(transport, transport)
