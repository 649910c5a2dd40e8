"""The journal: what a restarted dispatcher needs to go on without losing a message.

Every frame that changes something is appended as it came, and so is which messages went to which executor. Nothing
leaves the dispatcher before what it tells of is in the file (``Turns.send_soon``).
The file survives the process; the node only where ``ray_durability`` has it forced to the disk
(:mod:`raycelery.dispatcher.group_sync`); the cluster only where ``ray_journal`` names another folder than the Ray
session's, in which one dispatcher at a time writes (:mod:`raycelery.dispatcher.journal_lock`). Large values in the
object store end with the process that owned them; a message that refers to one fails with that reason.

The file is its dispatcher's user's own (:mod:`raycelery.cluster.own_folder`). It begins with :data:`MAGIC`, the version
of the protocol, and the mark of the key. A record is the number of the scheduler's latest message before it (8 bytes),
a length (4 bytes), and so many bytes: a frame without its own length, sealed along with both and with the place that
the record has in the file (:mod:`raycelery.dispatcher.seal`).
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raycelery.cluster.own_folder import OwnFolder
from raycelery.dispatcher.journal_lock import JournalLock
from raycelery.dispatcher.seal import MARK_BYTES, MORE_BYTES, BrokenSeal, seal_of
from raycelery.errors import FolderError, JournalInUse
from raycelery.protocol import framing
from raycelery.protocol.codec import VERSION, ProtocolError
from raycelery.protocol.records import Record, Source, record

logger = logging.getLogger(__name__)

#: What every journal begins with, before version and mark.
MAGIC = b"raycelery journal"
_VERSION = struct.Struct("!H")
_HEAD_BYTES = len(MAGIC) + _VERSION.size + MARK_BYTES
#: Number and length; and these with the place before them, which is sealed along and not written.
_PREFIX = struct.Struct("!QI")
_PLACE = struct.Struct("!QQI")


class Journal:
    """An append-only file of records.

    Arguments:
        path: of the file; made when it is not there, along with a key beside it.
        latest: returns the number of the scheduler's latest message.
        key: path of a file with a secret, in place of the key beside it.
        durable: whether what is written anew is forced to the disk.
        shared: whether other machines may reach the folder, so that the lock may be lost with the network.

    Raises:
        JournalInUse: another dispatcher writes it.
        FolderError: folder, file or key are another's, or the file was written with another key.
    """

    def __init__(
        self,
        path: Path,
        latest: Callable[[], int] = lambda: 0,
        key: str | None = None,
        *,
        durable: bool = False,
        shared: bool = False,
    ) -> None:
        self.path = path
        self._latest = latest
        self._durable = durable
        self._shared = shared
        self._folder = OwnFolder(path.parent)
        self._lock = JournalLock(path, self._folder.open(f"{path.name}.lock", os.O_RDWR | os.O_CREAT))
        self._seal = seal_of(self._folder, f"{path.name}.key", key)
        self._see_that_it_is_ours()
        self._file = self._open()
        #: What was added and not written, with the part of a write that was cut short.
        self._added: list[bytes] = []
        #: Bytes that the file has, or will have.
        self.size = self._folder.size(path.name) or 0
        if not self.size:
            self._add(self._head())
        self._source: str | None = None
        #: To be called once what was added is written.
        self._then: list[Callable[[], None]] = []
        #: Whether something of what it held is missing.
        self.damaged = False

    def _open(self) -> io.FileIO:
        return open(self._folder.open(self.path.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0)

    def _head(self) -> bytes:
        return MAGIC + _VERSION.pack(VERSION) + self._seal.mark

    def _see_that_it_is_ours(self) -> None:
        """Leave a journal of another version for whoever has that version, and refuse one of another key."""
        if not self._folder.size(self.path.name):
            return
        with self._reading() as file:
            head = file.read(_HEAD_BYTES)
        if not head.startswith(MAGIC) or len(head) < _HEAD_BYTES or head == self._head():
            return  # what is damaged is seen to when it is read
        (version,) = _VERSION.unpack_from(head, len(MAGIC))
        if version == VERSION:
            if next(self.read(), None) is not None:
                return
            raise FolderError(
                f"the journal {self.path} was written with another key: give ray_journal_key the one that it was "
                "written with, or move the journal away, and with it the tasks that are in it"
            )
        aside = f"{self.path.name}.other-version"
        self._folder.replace(aside, self.path.name)
        logger.error(
            "the journal %s was written by another version of raycelery (protocol version %d, and this one is %d): it "
            "begins with nothing; %s has what was unfinished, for a dispatcher of that version",
            self.path, version, VERSION, self.path.with_name(aside),
        )  # fmt: skip

    def _reading(self) -> io.BufferedReader:
        return open(self._folder.open(self.path.name, os.O_RDONLY), "rb")

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
        self._add(self._record(self.size, seq, frame))

    def _record(self, place: int, seq: int, frame: bytes) -> bytes:
        data = memoryview(frame)[framing.LENGTH_BYTES :]
        length = len(data) + MORE_BYTES
        return _PREFIX.pack(seq, length) + self._seal.close(data, _PLACE.pack(place, seq, length))

    def _add(self, data: bytes) -> None:
        self._added.append(data)
        self.size += len(data)

    def flush(self) -> None:
        """Hand what was added to the operating system, where it outlives this process.

        Raises:
            OSError: it cannot be written; it is kept, and the next call tries again.
            JournalInUse: another dispatcher has put its own in the place of this one; this one must end.
        """
        if not self._added:
            return
        data = memoryview(self._added[0] if len(self._added) == 1 else b"".join(self._added))
        try:
            while data:
                data = data[self._file.write(data) :]
        finally:
            self._added = [bytes(data)] if data else []
        if self._shared and self._folder.inode(self.path.name) != os.fstat(self._file.fileno()).st_ino:
            raise JournalInUse(f"another dispatcher has taken the journal {self.path} over")
        if self._then:
            self._call_then()

    def when_written(self, then: Callable[[], None]) -> None:
        """Have something called once all that was added until now is written."""
        self._then.append(then)

    def _call_then(self) -> None:
        then, self._then = self._then, []
        for call in then:
            call()

    def rewrite(self, frames: Iterable[tuple[str, bytes]]) -> None:
        """Replace the file's content, all or nothing.

        Raises:
            OSError: it cannot be written; the file is as it was.
        """
        seq, scratch = self._latest(), f"{self.path.name}.new"
        self._folder.remove(scratch)
        before: str | None = None
        try:
            with open(self._folder.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                size = file.write(self._head())
                for source, frame in frames:
                    if source != before:
                        before = source
                        size += file.write(self._record(size, seq, framing.pack(Source(source))))
                    size += file.write(self._record(size, seq, frame))
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            self._folder.remove(scratch)
            raise
        self._file.close()
        self._folder.replace(self.path.name, scratch)
        if self._durable:
            self._folder.sync()
        self._file = self._open()
        # The frames tell of what was added, too.
        self._added = []
        self.size = size
        self._source = None
        self._call_then()

    def descriptor(self) -> int:
        """Return the descriptor of the file as it is now."""
        return self._file.fileno()

    def remove(self) -> None:
        """Remove the file; what is added from now on is not kept."""
        self._shared = False
        self._file.close()
        self._folder.remove(self.path.name)
        self._file = open(os.devnull, "ab", buffering=0)  # noqa: SIM115

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        self._file.close()
        self._lock.release()
        self._folder.close()

    # -- what it says -------------------------------------------------------------------------------------------

    def read(self, damaged: list[Damage] | None = None) -> Iterator[tuple[str, int, Record]]:
        """Yield the records: who each came from, the number of the latest message before it, and itself.

        A last record that was cut short is left out.

        Arguments:
            damaged: what cannot be read is added to it.
        """
        source, offset = "", _HEAD_BYTES
        damaged = [] if damaged is None else damaged
        with self._reading() as file:
            left = os.fstat(file.fileno()).st_size - _HEAD_BYTES
            if file.read(_HEAD_BYTES) != self._head():
                damaged.append(Damage(0, "it does not begin as a journal does"))
            while left >= _PREFIX.size:
                seq, length = _PREFIX.unpack(file.read(_PREFIX.size))
                left -= _PREFIX.size + length
                if left < 0:
                    if length > framing.FRAME_BYTES:
                        told = f"its length of {length} bytes cannot be; what follows is unknown"
                        damaged.append(Damage(offset, told))
                    return
                try:
                    data = self._seal.open(file.read(length), _PLACE.pack(offset, seq, length))
                    found = record.decode(data)
                except (BrokenSeal, ProtocolError) as exc:
                    damaged.append(Damage(offset, str(exc)))
                else:
                    if type(found) is Source:
                        source = found.source
                    else:
                        yield source, seq, found
                offset += _PREFIX.size + length

    def restore(self, apply: Callable[[str, int, Record], None]) -> bool:
        """Hand every record to ``apply``; False if there is none.

        What is damaged, and what ``apply`` fails on, is left out; the file is then kept aside as a whole.

        Raises:
            OSError: the file is there and cannot be read.
        """
        if not self._folder.size(self.path.name):
            return False
        count = 0
        damaged: list[Damage] = []
        for source, seq, found in self.read(damaged):
            count += 1
            try:
                apply(source, seq, found)
            except Exception as exc:  # whatever it is, the other records are needed all the same
                logger.exception("a record of the journal %s cannot be used", self.path)
                damaged.append(Damage(-1, f"{type(found).__name__}: {exc!r}"))
        logger.warning("the dispatcher was restarted: %d records read from %s", count, self.path)
        if damaged:
            self.damaged = True
            aside = f"{self.path.name}.damaged"
            self._folder.remove(aside)
            with (
                self._reading() as file,
                open(self._folder.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as copy,
            ):
                shutil.copyfileobj(file, copy)
            told = "; ".join(f"at byte {one.offset}: {one.reason}" for one in damaged[:10])
            logger.error(
                "%d records of the journal %s are damaged and were left out (%s); %s has all of it",
                len(damaged), self.path, told, self.path.with_name(aside),
            )  # fmt: skip
        return True


@dataclass(frozen=True)
class Damage:
    """A record that cannot be used.

    Arguments:
        offset: where it begins in the file, in bytes.
        reason: why.
    """

    offset: int
    reason: str
