"""Which message an executor has begun last: written where it outlives the executor and its dispatcher.

An executor is given several short messages at a time, and begins one after the other without asking. Its reports may be
on their way when it or the dispatcher dies, so that nobody else knows how far it has come. So it writes the number of
each message that it begins to a file that it maps into its memory, for a tenth of a microsecond. The kernel keeps the
file's pages when the process is killed; when the machine goes down it may lose them, so the file says from which start
of the machine it is. The lock on the file goes with the process, and tells that nothing more begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import signal
import struct
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import psutil

from raycelery.cluster.own_folder import OwnFolder

logger = logging.getLogger(__name__)

#: Process id, number of the message that was begun last, and what tells the machine's start from others.
_CONTENT = struct.Struct("=QQ16s")
#: Seconds that a killed process may take to end, and between two looks.
END_SECONDS = 10.0
_LOOK_SECONDS = 0.01
#: Files that are older, in seconds, and have no process are removed.
OLD_SECONDS = 86_400.0


class BegunFile:
    """An executor's file.

    The lock is a POSIX one, which a forked child does not have: https://man7.org/linux/man-pages/man2/fcntl.2.html.

    Arguments:
        folder: that has the files of this node's executors; made if it is missing.

    Raises:
        FolderError: the folder is another user's.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        own = OwnFolder(folder)
        _remove_old(folder)
        name = f"{os.getpid()}-{uuid.uuid4().hex}"
        self.path = str(folder / name)
        self._fd = own.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        own.close()
        os.write(self._fd, _CONTENT.pack(os.getpid(), 0, _start_of_machine()))
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        self._numbers = memoryview(mmap.mmap(self._fd, _CONTENT.size)).cast("Q")

    def begin(self, seq: int) -> None:
        """Note that a message begins, by the scheduler's number of it."""
        self._numbers[1] = seq

    def close(self) -> None:
        """Let go of the file: the process lives on and begins nothing more."""
        os.close(self._fd)


def last_begun(path: str) -> int | None:
    """Return the number of the message that an executor began last, 0 for none; end the executor first if it runs.

    To be called on the executor's node. None where the file is not there or of before the machine was started, or the
    process does not end.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as exc:
        logger.warning("nobody knows what the executor of %s has begun: %s", path, exc)
        return None
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            logger.error("%s is another user's, who may have written anything to it", path)
            return None
        deadline = time.monotonic() + END_SECONDS
        while not _unlocked(fd):
            if time.monotonic() > deadline:
                logger.error("the executor of %s was killed and does not end", path)
                return None
            # The holder of the lock, and so not another process of that number.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(_CONTENT.unpack(os.pread(fd, _CONTENT.size, 0))[0], signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
        _, seq, start = _CONTENT.unpack(os.pread(fd, _CONTENT.size, 0))
        if start != _start_of_machine():
            logger.warning("what %s said before the machine went down may be lost", path)
            return None
        return int(seq)
    finally:
        os.close(fd)


def _start_of_machine() -> bytes:
    """Return what is the same until the machine is started again."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # not Linux
        text = str(psutil.boot_time())
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def all_last_begun(paths: Iterable[str]) -> list[int | None]:
    """Return :func:`last_begun` of several files of one node."""
    return [last_begun(path) for path in paths]


def _unlocked(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_old(folder: Path) -> None:
    now = time.time()
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            if now - entry.stat().st_mtime > OLD_SECONDS:
                fd = os.open(entry.path, os.O_RDWR)
                try:
                    if _unlocked(fd):
                        os.unlink(entry.path)
                finally:
                    os.close(fd)
