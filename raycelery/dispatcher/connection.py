"""One process's connection, as the dispatcher sees it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing, refusals
from raycelery.protocol.codec import ProtocolError, Tagged, encode
from raycelery.protocol.frames import (
    Acknowledged,
    Answer,
    Ask,
    BatchReports,
    BridgeReport,
    Changes,
    FollowLines,
    Hello,
    Refusal,
    Result,
    Results,
    RunMeasured,
    TaskLines,
    ToDispatcher,
    Watch,
    to_dispatcher,
)

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher

logger = logging.getLogger(__name__)

#: Seconds that results which are prefetched wait for others to go with: nobody waits for them yet.
PREFETCHED_SECONDS = 0.001
#: Seconds that a process has to prove that it knows the secret.
PROOF_SECONDS = 10.0
#: Seconds that the large values of a process are kept after its connection was lost.
HOLD_SECONDS = 5.0


class Connection(asyncio.Protocol):
    """One process's connection, as the dispatcher sees it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.transport: asyncio.Transport | None = None
        self.unpacker = framing.Unpacker(to_dispatcher)
        #: Until the process has proved that it may talk.
        self._greeting: framing.Greeting | None = framing.Greeting(dispatcher.listens_at)
        #: What it has said of itself.
        self.info = Hello("observer")
        self.source = ""
        #: The scheduler's number of the executor that it is; None: it is none.
        self.executor_id: int | None = None
        self.codes = 0
        self.watching: set[str] = set()
        self.results: list[Result] = []
        self.acks: list[int] = []
        #: What became of a bridge's messages.
        self.jobs: list[BridgeReport] = []
        self._outgoing: list[bytes] = []
        self._later: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        assert self._greeting is not None
        transport.write(self._greeting.opening)
        self.dispatcher.connections.add(self)
        if self.dispatcher._loop is not None:
            self.dispatcher._loop.call_later(PROOF_SECONDS, self._close_unproved)

    def _close_unproved(self) -> None:
        if self._greeting is not None and self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._greeting is not None:
            data = self._prove(self._greeting, data)
        if not data:
            return
        try:
            frames = self.unpacker.feed_raw(data)
        except ProtocolError as exc:
            assert self.transport is not None
            logger.error("closed a connection that sent something else than a frame: %s", exc)
            self.transport.abort()
            return
        for frame, raw in frames:
            self._take(frame, raw)

    def _take(self, frame: ToDispatcher, raw: bytes) -> None:
        dispatcher = self.dispatcher
        match frame:
            case Changes():
                dispatcher.on_changes(self, frame, raw)
            case Watch():
                dispatcher.on_watch(self, frame)
            case Ask():
                dispatcher.on_ask(self, frame, raw)
            case TaskLines():
                dispatcher.logs.take(self, frame)
            case FollowLines():
                dispatcher.logs.follow(self, frame)
            case RunMeasured():
                dispatcher.profiling.take(frame)
            case Hello():
                self._on_hello(frame)
            case _:
                dispatcher.bridge_jobs.on_frame(self, frame)

    def _on_hello(self, hello: Hello) -> None:
        dispatcher = self.dispatcher
        self.info, self.source = hello, hello.holder
        for key in hello.holds:
            for ref in dispatcher.large_values.refs(key):
                dispatcher.large_values.hold(key, self.source, ref)
        dispatcher.logs.came(self)
        if hello.executor_id is not None:
            self.executor_id = hello.executor_id
            dispatcher.executor_manager.came(hello.executor_id, self)
            dispatcher.greet(self)

    def _prove(self, greeting: framing.Greeting, data: bytes) -> bytes:
        assert self.transport is not None
        try:
            heard = greeting.hear(data)
        except DispatcherUnreachable as exc:
            logger.warning("refused a connection from %s: %s", self.transport.get_extra_info("peername"), exc)
            self.transport.close()
            return b""
        if heard is None:
            return b""
        self._greeting = None
        proof, rest = heard
        self.transport.write(proof)
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
        dispatcher.back_pressured = [one for one in dispatcher.back_pressured if one[0] is not self]
        dispatcher.drainers = [one for one in dispatcher.drainers if one[0] is not self]
        if self.info.role == "bridge":
            dispatcher.bridge_jobs.gone(self)
            dispatcher.turn_soon()
        if self.source and dispatcher._loop is not None:
            # It may only have to connect again.
            dispatcher._loop.call_later(HOLD_SECONDS, self._release_values)

    def _release_values(self) -> None:
        dispatcher = self.dispatcher
        if all(conn.source != self.source for conn in dispatcher.connections):
            dispatcher.large_values.release_all(self.source)
            dispatcher.turn_soon()

    def send(self, frame: Tagged | bytes) -> None:
        """Send a frame, after what it tells of was written to the journal, unless the process is gone."""
        self._outgoing.append(frame if isinstance(frame, bytes) else framing.pack(frame))
        self.dispatcher.send_soon(self)

    def write_out(self) -> None:
        """Hand what is to be sent to the operating system; what it tells of is in the journal."""
        self._collect()
        outgoing, self._outgoing = self._outgoing, []
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(outgoing)

    def unsent(self) -> int:
        """Return how many bytes wait for the process to read them."""
        waiting = sum(map(len, self._outgoing))
        return waiting if self.transport is None else waiting + self.transport.get_write_buffer_size()

    def answer(self, question_id: int, value: Any) -> None:
        """Answer a question; what was told before it goes before it.

        Raises:
            TypeError: the answer is no plain data.
        """
        answer = Answer(question_id, msgspec.Raw(encode(value)))
        self._collect()
        self.send(answer)

    def refuse(self, question_id: int, exc: Exception) -> None:
        """Tell why a question cannot be answered."""
        self._collect()
        self.send(Refusal(question_id, *refusals.named(exc)))

    def dirty(self, *, later: bool = False) -> None:
        """Have acks and results sent at the end of this turn, or a little later, to share a frame with others."""
        if not later:
            self.dispatcher.send_soon(self)
        elif self._later is None:
            loop = self.dispatcher._loop
            assert loop is not None
            self._later = loop.call_later(PREFETCHED_SECONDS, self.dispatcher.send_soon, self)

    def _collect(self) -> None:
        """Make frames of the acks and results so far."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self.acks:
            self._outgoing.append(framing.pack(Acknowledged(self.acks)))
            self.acks = []
        if self.results:
            self._outgoing.append(framing.pack(Results(self.results)))
            self.results = []
        if self.jobs:
            self._outgoing.append(framing.pack(BatchReports(self.jobs)))
            self.jobs = []
