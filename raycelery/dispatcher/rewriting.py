"""When the journal is written anew: when that saves as much as it costs."""

from __future__ import annotations

from typing import Protocol

from raycelery.dispatcher.store import Store
from raycelery.protocol.records import CompleteChord
from raycelery.scheduler.model import Message
from raycelery.scheduler.view import View

#: The file is written anew when it is at least so large, in bytes, and at least half of it is about the past.
REWRITE_BYTES = 64_000_000
#: Bytes of a record besides its payload, roughly.
_RECORD_BYTES = 200


class File(Protocol):
    """The journal's file."""

    #: Bytes that it has.
    size: int


class Rewriting:
    """Knows whether it is time to write a journal anew.

    Counting what would be left costs time where much is waiting, and so it is done again only once the file has grown
    by as much as was left.

    Arguments:
        journal: the file.
        view: of the scheduler, whose messages are in it.
        store: whose results are in it.
        least: size of the file under which it is not worth the trouble, in bytes.
    """

    def __init__(self, journal: File, view: View, store: Store, least: int = REWRITE_BYTES) -> None:
        self._journal = journal
        self._view = view
        self._store = store
        self._look_at = self._least = least

    def due(self) -> bool:
        """Return whether at least half of the file is about the past."""
        size = self._journal.size
        if size < self._look_at:
            # It may have been written anew for another reason.
            self._look_at = min(self._look_at, max(self._least, 2 * size + self._least))
            return False
        needed = self._needed()
        self._look_at = max(self._least, size + needed // 2)
        return 2 * needed < size

    def failed(self) -> None:
        """Take note that it could not be written anew; it is tried again once it has grown some more."""
        self._look_at = self._journal.size + self._least // 8

    def done(self) -> None:
        """Take note that the journal was written anew."""
        self._look_at = max(self._least, 2 * self._journal.size)

    def _needed(self) -> int:
        waiting = sum(_size(message) for message in self._view.unfinished())
        return waiting + self._store.bytes + _RECORD_BYTES * len(self._store)


def _size(message: Message) -> int:
    payload = message.payload
    if isinstance(payload, bytes):
        return len(payload) + _RECORD_BYTES
    if isinstance(payload, CompleteChord):
        return sum(map(len, payload.parts)) + _RECORD_BYTES
    return 0
