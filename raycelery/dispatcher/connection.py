"""One process's connection, as the dispatcher sees it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing, keepalive, refusals
from raycelery.protocol.codec import ProtocolError, Tagged, encode
from raycelery.protocol.frames import (
    Acknowledged,
    Answer,
    BatchReports,
    BridgeReport,
    Hello,
    Refusal,
    Result,
    Results,
    ToDispatcher,
    to_dispatcher,
)

if TYPE_CHECKING:
    from raycelery.dispatcher.turns import Turns

logger = logging.getLogger(__name__)

#: Seconds that results which are prefetched wait for others to go with: nobody waits for them yet.
PREFETCHED_SECONDS = 0.001
#: Seconds that a process has to prove that it knows the secret.
PROOF_SECONDS = 10.0


class Handler(Protocol):
    """What becomes of connections and of what comes over them."""

    #: Where the dispatcher says that it listens.
    endpoint: framing.Endpoint

    def on_made(self, conn: Connection) -> None:
        """Take note of a connection."""

    def on_frame(self, conn: Connection, frame: ToDispatcher, raw: bytes) -> None:
        """Take a frame of a process that has proved that it may talk, and the frame's bytes."""

    def on_lost(self, conn: Connection) -> None:
        """Take note that a connection is lost."""


class Connection(asyncio.Protocol):
    """One process's connection, as the dispatcher sees it.

    Arguments:
        handler: takes what comes.
        turns: have what is to be sent leave, once what it tells of is in the journal.
    """

    def __init__(self, handler: Handler, turns: Turns) -> None:
        self._handler = handler
        self._turns = turns
        self.transport: asyncio.Transport | None = None
        self.unpacker = framing.Unpacker(to_dispatcher)
        #: Until the process has proved that it may talk.
        self._greeting: framing.Greeting | None = framing.Greeting(handler.endpoint)
        #: What it has said of itself.
        self.info = Hello("observer")
        self.source = ""
        #: The scheduler's number of the executor that it is; None: it is none.
        self.executor_id: int | None = None
        self.codes = 0
        #: Ids of tasks whose results it waits for.
        self.watching: set[str] = set()
        self.results: list[Result] = []
        #: What became of a bridge's messages.
        self.jobs: list[BridgeReport] = []
        self._acks: list[int] = []
        self._outgoing: list[bytes] = []
        self._later: asyncio.TimerHandle | None = None
        #: Set once all that the process has sent was taken, and nothing more will come.
        self.closed = asyncio.Event()
        #: Whether it is a client or a bridge, which are told of the journal.
        self.takes_word = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not of asyncio's class where the project has uvloop, which Ray's actors use then.
        self.transport = transport = cast("asyncio.Transport", transport)
        keepalive.keep(transport.get_extra_info("socket"))
        assert self._greeting is not None
        transport.write(self._greeting.opening)
        self._handler.on_made(self)
        asyncio.get_running_loop().call_later(PROOF_SECONDS, self._close_unproved)

    def _close_unproved(self) -> None:
        if self._greeting is not None and self.transport is not None:
            self.transport.close()

    def end_if_cut_off(self) -> None:
        """End the connection if its host is out of reach; what waits to be sent to it would keep that from showing."""
        if self.transport is None or self.transport.is_closing():
            return
        if keepalive.cut_off(self.transport.get_extra_info("socket")):
            logger.warning("%s of %s does not answer: its connection is ended", self.info.role, self.info.host)
            self.transport.abort()

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
            self._handler.on_frame(self, frame, raw)

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
        self.closed.set()
        self._handler.on_lost(self)

    def abort(self) -> None:
        """Close it at once; what has not come will not be taken."""
        if self.transport is not None:
            self.transport.abort()

    def send(self, frame: Tagged | bytes) -> None:
        """Send a frame, after what it tells of was written to the journal, unless the process is gone."""
        self._outgoing.append(frame if isinstance(frame, bytes) else framing.pack(frame))
        self._turns.send_soon(self)

    def write_out(self) -> None:
        """Hand what is to be sent to the operating system; what it tells of is in the journal."""
        self.write(self.take_out())

    def take_out(self) -> list[bytes]:
        """Return what is to be sent, which the caller sends once what it tells of is durable."""
        self._collect()
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def write(self, frames: list[bytes]) -> None:
        """Hand frames to the operating system."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(frames)

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

    def acknowledge(self, frame_id: int) -> None:
        """Tell that a frame of submissions is safe."""
        self._acks.append(frame_id)
        self._turns.send_soon(self)

    def dirty(self, *, later: bool = False) -> None:
        """Have results and reports sent at the end of this turn, or a little later, to share a frame with others."""
        if not later:
            self._turns.send_soon(self)
        elif self._later is None:
            self._later = self._turns.send_in(PREFETCHED_SECONDS, self)

    def _collect(self) -> None:
        """Make frames of the acks and results so far."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._acks:
            self._outgoing.append(framing.pack(Acknowledged(self._acks)))
            self._acks = []
        if self.results:
            self._outgoing.append(framing.pack(Results(self.results)))
            self.results = []
        if self.jobs:
            self._outgoing.append(framing.pack(BatchReports(self.jobs)))
            self.jobs = []
