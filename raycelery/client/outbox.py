"""What a process is about to tell its dispatcher, and what it has told without having heard that it is there."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Iterable, Iterator

import msgspec

from raycelery.protocol import framing
from raycelery.protocol.codec import Tagged, encode
from raycelery.protocol.definitions import Definition
from raycelery.protocol.frames import Changes, to_dispatcher
from raycelery.protocol.operations import Operation
from raycelery.protocol.reports import Report

#: Messages in a frame, and bytes in a frame.
BATCH_MESSAGES = 64
BATCH_BYTES = 256_000
#: Frames of submissions that may be unacknowledged before ``submit`` blocks.
WINDOW_FRAMES = 64


class Outbox:
    """The parts of the next frame, and the frames of submissions that the dispatcher has not acknowledged.

    Each part is encoded when it is handed in: what is wrong with it is its caller's error. All but what ``told`` guards
    is guarded by the lock of the client's sending side.

    Arguments:
        told: guards the frames that are not acknowledged; notified when they change.
        max_pending: so many messages may wait at the dispatcher.
        max_pending_bytes: so many bytes of what they carry.
    """

    def __init__(self, told: threading.Condition, max_pending: float, max_pending_bytes: float) -> None:
        self._told = told
        # A small queue is not to be overrun by what is in one frame, or need not be acknowledged.
        self._batch = int(max(1, min(BATCH_MESSAGES, max_pending // 4)))
        quarter = min(max_pending // (4 * self._batch), max_pending_bytes // (4 * BATCH_BYTES))
        self._window = int(max(0, min(WINDOW_FRAMES, quarter - 1)))
        self.submissions: list[msgspec.Raw] = []
        self._bytes = 0
        self._definitions: list[msgspec.Raw] = []
        #: All that was defined, for a dispatcher that does not know it.
        self.defined: dict[Hashable, msgspec.Raw] = {}
        self._operations: list[msgspec.Raw] = []
        self._reports: list[msgspec.Raw] = []
        self._frame_ids = itertools.count(1)
        #: Sent again if the dispatcher is restarted meanwhile.
        self.unacked: dict[int, bytes] = {}

    # -- what is handed in --------------------------------------------------------------------------------------

    def define(self, key: Hashable, definition: Definition) -> None:
        """Take in a definition."""
        encoded = self.defined[key] = _encoded(definition)
        self._definitions.append(encoded)

    def submit(self, encoded: bytes) -> bool:
        """Take in a submission; return whether the frame is full."""
        self.submissions.append(msgspec.Raw(encoded))
        self._bytes += len(encoded)
        return len(self.submissions) >= self._batch or self._bytes >= BATCH_BYTES

    def store(self, operation: Operation) -> None:
        """Take in a write to the store.

        Raises:
            TypeError: it holds something that is no plain data.
        """
        self._operations.append(_encoded(operation))

    def report(self, reports: Iterable[Report]) -> None:
        """Take in what became of messages: all of it, or none.

        Raises:
            TypeError: it holds something that is no plain data.
        """
        self._reports += [_encoded(report) for report in reports]

    # -- what is sent -------------------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self.submissions or self._operations or self._reports or self._definitions)

    def frame(self) -> tuple[int, bytes]:
        """Return the next frame, with all that was handed in, and its number; 0: it is not acknowledged."""
        frame_id = next(self._frame_ids) if self.submissions else 0
        frame = framing.pack(
            Changes(frame_id, self._definitions, self.submissions, self._operations, self._reports)  # type: ignore[arg-type]
        )
        if frame_id:
            with self._told:
                self.unacked[frame_id] = frame
        self.submissions, self._bytes = [], 0
        self._definitions, self._operations, self._reports = [], [], []
        return frame_id, frame

    def again(self) -> Iterator[bytes]:
        """Yield what a dispatcher that was restarted may not know: its journal may be lost."""
        if self.defined:
            yield framing.pack(Changes(definitions=list(self.defined.values())))  # type: ignore[arg-type]
        yield from list(self.unacked.values())

    # -- what is acknowledged -----------------------------------------------------------------------------------

    def acknowledge(self, frame_ids: Iterable[int]) -> None:
        """Take note of frames that the dispatcher has."""
        with self._told:
            for frame_id in frame_ids:
                self.unacked.pop(frame_id, None)
            self._told.notify_all()

    @property
    def has_room(self) -> bool:
        """Whether one more may be handed in without waiting for the dispatcher."""
        return len(self.unacked) <= self._window

    def unconfirmed(self) -> int:
        """Return how many messages the dispatcher has not said to have, be it that they were not even sent."""
        with self._told:
            frames = [framing.Unpacker(to_dispatcher).feed(frame)[0] for frame in self.unacked.values()]
        return len(self.submissions) + sum(len(one.submissions) for one in frames if isinstance(one, Changes))


def _encoded(part: Tagged) -> msgspec.Raw:
    return msgspec.Raw(encode(part))
