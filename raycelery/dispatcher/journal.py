"""The journal: what a restarted dispatcher needs to go on without losing a message.

Every frame that changes something is appended as it came, and so is which messages went to which executor. Nothing
leaves the dispatcher before what it tells of is in the file (``Dispatcher.send_soon``).
The file survives the process, not the node: it is not forced to disk, and lies in the Ray session's folder unless
``ray_journal`` names another. Large values in the object store end with the process that owned them; a message that
refers to one fails with that reason.

A record is the number of the scheduler's latest message before it (8 bytes) and a checksum of what follows (4 bytes):
a frame, see :mod:`raycelery.protocol.framing`.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raycelery.protocol import framing
from raycelery.protocol.codec import VERSION, ProtocolError
from raycelery.protocol.records import Record, Source, Version, record

logger = logging.getLogger(__name__)

#: The file is written anew when it is at least so large, in bytes, and most of it is about the past.
REWRITE_BYTES = 64_000_000
#: Number, checksum, and the length with which the frame begins.
_RECORD = struct.Struct("!QII")
_PREFIX = struct.Struct("!QI")


def _record(seq: int, frame: bytes) -> bytes:
    return _PREFIX.pack(seq, zlib.crc32(frame))


def _head() -> bytes:
    frame = framing.pack(Version(VERSION))
    return _record(0, frame) + frame


#: What every journal begins with.
_HEAD = _head()


class Journal:
    """An append-only file of records.

    Arguments:
        path: of the file; made when it is not there.
        latest: returns the number of the scheduler's latest message.
    """

    def __init__(self, path: Path, latest: Callable[[], int] = lambda: 0) -> None:
        self.path = path
        self._latest = latest
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_aside(path)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (held for the dispatcher's life)
        #: What was added and not written, with the part of a write that was cut short.
        self._added: list[bytes] = []
        #: Bytes that the file has, or will have.
        self.size = path.stat().st_size
        if not self.size:
            self._add(_HEAD)
        self._source: str | None = None

    def append(self, source: str, frame: bytes) -> None:
        """Add a frame that came from ``source``: a process's id, or "" for our own.

        To be called before the scheduler hears of what the frame tells.
        """
        seq = self._latest()
        if source != self._source:
            self._source = source
            self._write(seq, framing.pack(Source(source)))
        self._write(seq, frame)

    def _write(self, seq: int, frame: bytes) -> None:
        self._add(_record(seq, frame))
        self._add(frame)

    def _add(self, data: bytes) -> None:
        self._added.append(data)
        self.size += len(data)

    def flush(self) -> None:
        """Hand what was added to the operating system, where it outlives this process.

        Raises:
            OSError: it cannot be written; it is kept, and the next call tries again.
        """
        if not self._added:
            return
        data = memoryview(self._added[0] if len(self._added) == 1 else b"".join(self._added))
        try:
            while data:
                data = data[self._file.write(data) :]
        finally:
            self._added = [bytes(data)] if data else []

    def rewrite(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Replace the file's content, all or nothing."""
        seq = self._latest()
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_HEAD)
                for source, frame in frames:
                    for one in (framing.pack(Source(source)), frame):
                        file.write(_record(seq, one))
                        file.write(one)
        except BaseException:
            os.unlink(name)
            raise
        self._file.close()
        os.replace(name, self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        # The frames tell of what was added, too.
        self._added = []
        self.size = self.path.stat().st_size
        self._source = None

    def remove(self) -> None:
        """Remove the file; what is added from now on is not kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self._file = open(os.devnull, "ab", buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
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


@dataclass(frozen=True)
class Damage:
    """A record that cannot be used.

    Arguments:
        offset: where it begins in the file, in bytes.
        reason: why.
    """

    offset: int
    reason: str


def read(path: Path, damaged: list[Damage] | None = None) -> Iterator[tuple[str, int, Record]]:
    """Yield the records of a journal: who each came from, the number of the latest message before it, and itself.

    A last record that was cut short is left out.

    Arguments:
        path: of the file.
        damaged: what cannot be read is added to it.
    """
    source, offset, left = "", 0, path.stat().st_size
    damaged = [] if damaged is None else damaged
    with path.open("rb") as file:
        while left >= _RECORD.size:
            seq, checksum, length = _RECORD.unpack(file.read(_RECORD.size))
            left -= _RECORD.size + length
            if left < 0:
                if length > framing.FRAME_BYTES:
                    damaged.append(Damage(offset, f"its length of {length} bytes cannot be; what follows is unknown"))
                return
            body = file.read(length)
            if zlib.crc32(body, zlib.crc32(length.to_bytes(4, "big"))) != checksum:
                damaged.append(Damage(offset, f"the checksum of its {length} bytes is wrong"))
            else:
                try:
                    found = record.decode(body)
                except ProtocolError as exc:
                    damaged.append(Damage(offset, str(exc)))
                else:
                    if type(found) is Source:
                        source = found.source
                    elif type(found) is not Version:
                        yield source, seq, found
            offset += _RECORD.size + length


def restore(path: Path, apply: Callable[[str, int, Record], None]) -> bool:
    """Hand every record of a journal to ``apply``; False if there is none.

    What is damaged, and what ``apply`` fails on, is left out; the file is then kept aside as a whole.

    Raises:
        OSError: the file is there and cannot be read.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    count = 0
    damaged: list[Damage] = []
    for source, seq, found in read(path, damaged):
        count += 1
        try:
            apply(source, seq, found)
        except Exception as exc:  # whatever it is, the other records are needed all the same
            logger.exception("a record of the journal %s cannot be used", path)
            damaged.append(Damage(-1, f"{type(found).__name__}: {exc!r}"))
    logger.warning("the dispatcher was restarted: %d records read from %s", count, path)
    if damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.copyfile(path, aside)
        told = "; ".join(f"at byte {one.offset}: {one.reason}" for one in damaged[:10])
        logger.error(
            "%d records of the journal %s are damaged and were left out (%s); %s has all of it",
            len(damaged), path, told, aside,
        )  # fmt: skip
    return True
