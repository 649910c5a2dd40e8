"""One process's connection, as the dispatcher sees it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from typing import TYPE_CHECKING, Any

from raycelery.protocol import framing

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher

logger = logging.getLogger(__name__)

#: Seconds that results which were only hinted at wait for others to go with: nobody waits for them yet.
HINTED_SECONDS = 0.001
#: Seconds that a process has to prove that it knows the secret.
PROOF_SECONDS = 10.0
#: Seconds that the large values of a process are kept after its connection was lost.
HOLD_SECONDS = 5.0


class Connection(asyncio.Protocol):
    """One process's connection, as the dispatcher sees it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.transport: asyncio.Transport | None = None
        self.unpacker = framing.Unpacker()
        self.nonce = os.urandom(framing.NONCE_BYTES)
        self.proved = False
        self._greeting = b""
        self.info: dict[str, Any] = {}
        self.source = ""
        self.executor: int | None = None
        self.codes = 0
        self.watching: set[str] = set()
        self.metas: list[tuple[str, str, bytes | None]] = []
        self.acks: list[int] = []
        #: What became of a bridge's jobs: its batch id, index in the batch, event.
        self.jobs: list[tuple[int, int, tuple[Any, ...]]] = []
        self._dirty = False
        self._later: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.nonce)
        self.dispatcher.connections.add(self)
        if self.dispatcher._loop is not None:
            self.dispatcher._loop.call_later(PROOF_SECONDS, self._close_unproved)

    def _close_unproved(self) -> None:
        if not self.proved and self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if not self.proved:
            data = self._prove(data)
        if not data:
            return
        try:
            frames = self.unpacker.feed_raw(data)
        except Exception as exc:  # what pickle makes of bytes that are no frame can be anything
            assert self.transport is not None
            logger.error("closed a connection that sent no frame: %s", exc)
            self.transport.abort()
            return
        for frame, raw in frames:
            kind = frame[0]
            if kind == "batch":
                self.dispatcher.on_batch(self, frame, raw)
            elif kind == "watch":
                self.dispatcher.on_watch(self, frame)
            elif kind == "call":
                self.dispatcher.on_call(self, frame, raw)
            elif kind in ("run_batches", "recall_batch", "kill_job", "new_code"):
                self.dispatcher.bridge_jobs.on_frame(self, frame)
            elif kind in ("logs", "follow"):
                self.dispatcher.logs.on_frame(self, frame)
            elif kind == "measured":
                self.dispatcher.profiling.take(frame[1])
            elif kind == "hello":
                self.info = frame[1]
                self.source = self.info.get("holder", "")
                for key in self.info.get("holds", ()):
                    for ref in self.dispatcher.large_values.refs(key):
                        self.dispatcher.large_values.hold(key, self.source, ref)
                self.dispatcher.logs.came(self)
                if self.info.get("role") == "executor":
                    self.executor = self.info["executor"]
                    self.dispatcher.executor_manager.connected[self.info["executor"]] = self
                    self.dispatcher.greet(self)

    def _prove(self, data: bytes) -> bytes:
        assert self.transport is not None
        self._greeting += data
        size = framing.DIGEST_BYTES + framing.NONCE_BYTES
        if len(self._greeting) < size:
            return b""
        greeting, rest = self._greeting[:size], self._greeting[size:]
        secret = self.dispatcher.secret
        if not hmac.compare_digest(greeting[: framing.DIGEST_BYTES], framing.digest(secret, self.nonce)):
            logger.warning(
                "refused a connection from %s: it does not know the secret", self.transport.get_extra_info("peername")
            )
            self.transport.close()
            return b""
        self.proved = True
        self.transport.write(framing.digest(secret, greeting[framing.DIGEST_BYTES :]))
        return rest

    def connection_lost(self, exc: Exception | None) -> None:
        dispatcher = self.dispatcher
        dispatcher.connections.discard(self)
        dispatcher.logs.gone(self)
        if dispatcher.plane is not None:
            dispatcher.plane.gone(self)
        for task_id in self.watching:
            waiting = dispatcher.waiters.get(task_id)
            if waiting is not None:
                waiting.pop(self, None)
                if not waiting:
                    del dispatcher.waiters[task_id]
        dispatcher.held = [(conn, number) for conn, number in dispatcher.held if conn is not self]
        dispatcher.drainers = [(conn, number) for conn, number in dispatcher.drainers if conn is not self]
        if self.info.get("role") == "bridge":
            dispatcher.bridge_jobs.gone(self)
            dispatcher.turn_soon()
        if self.source and dispatcher._loop is not None:
            # It may only have to connect again.
            dispatcher._loop.call_later(HOLD_SECONDS, self._release_values)

    def _release_values(self) -> None:
        dispatcher = self.dispatcher
        if all(conn.source != self.source for conn in dispatcher.connections):
            dispatcher.large_values.release_all(self.source)

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def unsent(self) -> int:
        """Return how many bytes wait for the process to read them."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def reply(self, number: int, ok: bool, value: Any) -> None:
        """Answer a question; what was told before it goes before it."""
        self._flush()
        self.send(framing.pack("reply", number, ok, value))

    def dirty(self, *, later: bool = False) -> None:
        """Have acks and results sent at the end of this turn, or a little later, to share a frame with others."""
        loop = self.dispatcher._loop
        assert loop is not None
        if later:
            if not self._dirty and self._later is None:
                self._later = loop.call_later(HINTED_SECONDS, self._flush)
        elif not self._dirty:
            self._dirty = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._dirty = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self.acks:
            self.send(framing.pack("ack", self.acks))
            self.acks = []
        if self.metas:
            self.send(framing.pack("metas", self.metas))
            self.metas = []
        if self.jobs:
            self.send(framing.pack("jobs", self.jobs))
            self.jobs = []
