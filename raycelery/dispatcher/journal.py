"""The journal: what a restarted dispatcher needs to go on without losing a message.

Every frame that changes something is appended as it came, before it is acknowledged, and so is which messages went to
which executor. The file survives the process, not the node: it is not forced to disk, and lies in the Ray session's
folder unless ``ray_journal`` names another. Large values in the object store end with the process that owned them;
a message that refers to one fails with that reason.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from raycelery.protocol import framing

logger = logging.getLogger(__name__)

#: The file is written anew when it is at least so large, in bytes, and most of it is about the past.
REWRITE_BYTES = 64_000_000
#: Fields of a submission: see :meth:`raycelery.client.connection.Client.submit`.
Fields = tuple[Any, ...]


class Journal:
    """An append-only file of frames.

    Arguments:
        path: of the file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab", buffering=1 << 20)  # noqa: SIM115  (held for the dispatcher's life)
        self.size = path.stat().st_size
        self._source: Any = None

    def append(self, source: Any, frame: bytes) -> None:
        """Add a frame that came from ``source``: a client's id, an executor's number, or "" for our own."""
        if source != self._source:
            self._source = source
            head = framing.pack("from", source)
            self._file.write(head)
            self.size += len(head)
        self._file.write(frame)
        self.size += len(frame)

    def flush(self) -> None:
        """Hand what was added to the operating system, where it outlives this process."""
        self._file.flush()

    def rewrite(self, frames: Iterable[tuple[Any, bytes]]) -> None:
        """Replace the file's content, all or nothing."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "wb") as file:
            for source, frame in frames:
                file.write(framing.pack("from", source))
                file.write(frame)
        self._file.close()
        os.replace(name, self.path)
        self._file = open(self.path, "ab", buffering=1 << 20)  # noqa: SIM115
        self.size = self.path.stat().st_size
        self._source = None

    def remove(self) -> None:
        """Remove the file; what is added from now on is not kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self._file = open(os.devnull, "ab", buffering=1 << 20)  # noqa: SIM115

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def read(path: Path) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield ``(source, frame)`` from a journal; a last frame that was cut short is left out."""
    source: Any = None
    unpacker = framing.Unpacker()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            for frame in unpacker.feed(data):
                if frame[0] == "from":
                    source = frame[1]
                else:
                    yield source, frame


class Ledger:
    """Follows a journal, and knows at its end what is still to be done.

    Numbers messages as the scheduler does, so that reports find theirs.
    """

    def __init__(self) -> None:
        self._seq = 0
        self.messages: dict[int, Fields] = {}
        self.chords: dict[int, Any] = {}
        #: Who was given what and has not reported it, in order.
        self._outstanding: dict[int, dict[int, None]] = {}
        self._holder: dict[int, int] = {}

    def submitted(self, fields: Fields) -> int:
        """Note a submission; its number."""
        self._seq += 1
        self.messages[self._seq] = fields
        return self._seq

    def chord(self, completion: Any) -> int:
        """Note a chord whose parts are complete."""
        self._seq += 1
        self.chords[self._seq] = completion
        return self._seq

    def live(self, seq: int, what: Any) -> None:
        """Note a message of a rewritten journal, under the number it has."""
        self._seq = max(self._seq, seq)
        (self.messages if isinstance(what, tuple) else self.chords)[seq] = what

    def numbered(self, seq: int) -> None:
        """Note that numbers up to ``seq`` are taken, also by messages that are not in the journal."""
        self._seq = max(self._seq, seq)

    def purge(self, queue: str | None = None) -> None:
        """Note that what waited was dropped."""
        for seq, fields in list(self.messages.items()):
            if seq not in self._holder and (queue is None or fields[2] == queue):
                del self.messages[seq]

    def given(self, executor: int, seqs: Iterable[int]) -> None:
        """Note an assignment."""
        for seq in seqs:
            self._let_go(seq)
            self._outstanding.setdefault(executor, {})[seq] = None
            self._holder[seq] = executor

    def _let_go(self, seq: int) -> None:
        holder = self._holder.pop(seq, None)
        if holder is not None:
            self._outstanding[holder].pop(seq, None)

    def reported(self, report: tuple[Any, ...]) -> None:
        """Note what an executor said."""
        kind = report[0]
        if kind == "done":
            self._let_go(report[1])
            self.messages.pop(report[1], None)
            self.chords.pop(report[1], None)
        elif kind == "requeue":
            self._let_go(report[1])
            if report[2] and report[1] in self.messages:
                self._seq += 1
                self.messages[self._seq] = self.messages.pop(report[1])
        elif kind == "recalled":
            for seq in report[1]:
                self._let_go(seq)

    def running(self) -> set[int]:
        """Return the messages that were running: the first of what each executor had."""
        return {next(iter(seqs)) for seqs in self._outstanding.values() if seqs}


def restore(path: Path, apply: Callable[[Any, tuple[Any, ...]], None]) -> bool:
    """Hand every frame of a journal to ``apply``; False if there is none.

    Raises:
        OSError: the file is there and cannot be read.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    count = 0
    for source, frame in read(path):
        apply(source, frame)
        count += 1
    logger.warning("the dispatcher was restarted: %d frames read from %s", count, path)
    return True
