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

from raycelery.protocol import framing
from raycelery.protocol.codec import VERSION
from raycelery.protocol.messages import Done, Recalled, Report, Requeue, Submission
from raycelery.protocol.records import CompleteChord, Record, Source, Version, record

logger = logging.getLogger(__name__)

#: The file is written anew when it is at least so large, in bytes, and most of it is about the past.
REWRITE_BYTES = 64_000_000
#: What every journal begins with.
_HEAD = framing.pack(Version(VERSION))


class Journal:
    """An append-only file of frames.

    Arguments:
        path: of the file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_aside(path)
        self._file = open(path, "ab", buffering=1 << 20)  # noqa: SIM115  (held for the dispatcher's life)
        self.size = path.stat().st_size
        if not self.size:
            self.size = self._file.write(_HEAD)
        self._source: str | None = None

    def append(self, source: str, frame: bytes) -> None:
        """Add a frame that came from ``source``: a process's id, or "" for our own."""
        if source != self._source:
            self._source = source
            head = framing.pack(Source(source))
            self._file.write(head)
            self.size += len(head)
        self._file.write(frame)
        self.size += len(frame)

    def flush(self) -> None:
        """Hand what was added to the operating system, where it outlives this process."""
        self._file.flush()

    def rewrite(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Replace the file's content, all or nothing."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(_HEAD)
            for source, frame in frames:
                file.write(framing.pack(Source(source)))
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


def _put_aside(path: Path) -> None:
    """Leave a journal that was written by another version for whoever has that version."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        if file.read(len(_HEAD)) == _HEAD:
            return
    aside = path.with_name(f"{path.name}.other-version")
    path.replace(aside)
    logger.error(
        "the journal %s was written by another version of raycelery, which this one (protocol version %d) cannot read: "
        "it begins with nothing; %s has what was unfinished, for a dispatcher of that version",
        path, VERSION, aside,
    )  # fmt: skip


def read(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield ``(source, record)`` from a journal; a last record that was cut short is left out."""
    source = ""
    unpacker = framing.Unpacker(record)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            for found in unpacker.feed(data):
                if type(found) is Source:
                    source = found.source
                elif type(found) is not Version:
                    yield source, found


class Ledger:
    """Follows a journal, and knows at its end what is still to be done.

    Numbers messages as the scheduler does, so that reports find theirs.
    """

    def __init__(self) -> None:
        self._seq = 0
        self.messages: dict[int, Submission] = {}
        self.chords: dict[int, CompleteChord] = {}
        #: Who was given what and has not reported it, in order.
        self._outstanding: dict[int, dict[int, None]] = {}
        self._holder: dict[int, int] = {}

    def submitted(self, submission: Submission) -> int:
        """Note a submission; its number."""
        self._seq += 1
        self.messages[self._seq] = submission
        return self._seq

    def chord(self, complete: CompleteChord) -> int:
        """Note a chord whose parts are complete."""
        self._seq += 1
        self.chords[self._seq] = complete
        return self._seq

    def live(self, seq: int, what: Submission | CompleteChord) -> None:
        """Note a message of a rewritten journal, under the number it has."""
        self._seq = max(self._seq, seq)
        if isinstance(what, Submission):
            self.messages[seq] = what
        else:
            self.chords[seq] = what

    def numbered(self, seq: int) -> None:
        """Note that numbers up to ``seq`` are taken, also by messages that are not in the journal."""
        self._seq = max(self._seq, seq)

    def purge(self, queue: str | None = None) -> None:
        """Note that what waited was dropped."""
        for seq, submission in list(self.messages.items()):
            if seq not in self._holder and (queue is None or submission.queue == queue):
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

    def reported(self, report: Report) -> None:
        """Note what an executor said."""
        match report:
            case Done(seq):
                self._let_go(seq)
                self.messages.pop(seq, None)
                self.chords.pop(seq, None)
            case Requeue(seq, rejected):
                self._let_go(seq)
                if rejected and seq in self.messages:
                    self._seq += 1
                    self.messages[self._seq] = self.messages.pop(seq)
            case Recalled(seqs):
                for seq in seqs:
                    self._let_go(seq)

    def running(self) -> set[int]:
        """Return the messages that were running: the first of what each executor had."""
        return {next(iter(seqs)) for seqs in self._outstanding.values() if seqs}


def restore(path: Path, apply: Callable[[str, Record], None]) -> bool:
    """Hand every frame of a journal to ``apply``; False if there is none.

    Raises:
        OSError: the file is there and cannot be read.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    count = 0
    for source, found in read(path):
        apply(source, found)
        count += 1
    logger.warning("the dispatcher was restarted: %d records read from %s", count, path)
    return True
