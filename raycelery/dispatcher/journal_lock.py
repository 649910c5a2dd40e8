"""One dispatcher at a time writes a journal, also where several clusters can reach its folder.

The lock is a POSIX one on a file beside the journal. The kernel lets go of it when the process ends, and so does the
server of a network volume some time after it has heard of the process last:
https://man7.org/linux/man-pages/man2/fcntl.2.html.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from raycelery.errors import JournalInUse

#: Seconds that the dispatcher before may take to end.
WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class JournalLock:
    """Held until this process ends.

    Arguments:
        path: of the journal; the lock's file has its name and ``.lock``.
        descriptor: of the lock's file, open for reading and writing.
        wait: seconds to wait for another holder.

    Raises:
        JournalInUse: another dispatcher has it, or the folder is on a volume without locks.
    """

    def __init__(self, path: Path, descriptor: int, wait: float = WAIT_SECONDS) -> None:
        self._descriptor = descriptor
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if exc.errno not in (errno.EACCES, errno.EAGAIN):
                    raise JournalInUse(
                        f"the journal {path} cannot be locked ({exc}): have ray_journal name a folder on a volume with "
                        "POSIX locks"
                    ) from exc
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
                    raise JournalInUse(
                        f"the journal {path} is in use by {holder or 'another dispatcher'}: end that one with "
                        "'raycelery apps --end NAME', or give this application another ray_app_name or ray_journal"
                    ) from exc
            time.sleep(_LOOK_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"the dispatcher on {socket.gethostname()}, pid {os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others write the journal."""
        os.close(self._descriptor)
