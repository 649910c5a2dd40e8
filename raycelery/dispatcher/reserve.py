"""Room on the journal's disk that is kept for results: when the disk is full, what runs still comes to its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

#: Bytes that are kept.
RESERVE_BYTES = 16_000_000


class Reserve:
    """A file without a name that has room on a disk, and gives it up where nothing else is left.

    Arguments:
        folder: on the disk.
        size: of the room, in bytes.
    """

    def __init__(self, folder: Path, size: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._size = size
        self._file: IO[bytes] | None = None

    def hold(self) -> bool:
        """Take the room, if the disk has it; return whether it is taken."""
        if self._file is None:
            try:
                file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (held for long)
            except OSError:
                return False
            try:
                _allocate(file.fileno(), self._size)
            except OSError:
                file.close()
                return False
            self._file = file
        return True

    def give_up(self) -> bool:
        """Leave the room to whoever needs it; return whether there was any."""
        if self._file is None:
            return False
        self._file.close()
        self._file = None
        return True


def _allocate(descriptor: int, size: int) -> None:
    allocate: Callable[[int, int, int], None] | None = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        allocate(descriptor, 0, size)
    else:  # macOS
        block = bytes(1 << 20)
        for start in range(0, size, len(block)):
            os.pwrite(descriptor, block[: size - start], start)
