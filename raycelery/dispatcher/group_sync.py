"""``ray_durability="node"``: the journal is forced to the disk before frames leave, once for all that wait meanwhile.

A disk takes as long to make one record durable as a thousand, so the thousand are written while it works on the last
ones: https://man7.org/linux/man-pages/man2/fdatasync.2.html.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

logger = logging.getLogger(__name__)

#: Seconds until what failed is tried again.
AGAIN_SECONDS = 0.5

#: Force to the disk what has been written to a file (macOS has no ``fdatasync``).
force: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Leaving(Protocol):
    """A connection whose frames wait to leave."""

    def take_out(self) -> list[bytes]:
        """Return the frames that wait, which leave now, or as soon as the caller writes them."""

    def write(self, frames: list[bytes]) -> None:
        """Hand frames to the operating system."""


class GroupSync:
    """Lets frames leave once what they tell of is on the disk.

    Arguments:
        file: returns the descriptor of the journal's file as it is now.
        rewrite: writes the journal anew, and forces it to the disk.
    """

    def __init__(self, file: Callable[[], int], rewrite: Callable[[], None]) -> None:
        self._file = file
        self._rewrite = rewrite
        self._waiting: list[tuple[Leaving, list[bytes]]] = []
        self._under_way = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raycelery-sync")

    def send(self, connections: Iterable[Leaving]) -> None:
        """Have the frames of connections leave; what they tell of has been written to the file."""
        self._waiting += [(conn, conn.take_out()) for conn in connections]
        if self._waiting and not self._under_way:
            self._begin()

    def _begin(self) -> None:
        self._under_way = True
        batch, self._waiting = self._waiting, []
        # The journal may be written anew meanwhile, which closes its descriptor.
        descriptor = os.dup(self._file())
        future = asyncio.get_running_loop().run_in_executor(self._thread, _force, descriptor)
        future.add_done_callback(partial(self._done, batch))

    def _done(self, batch: list[tuple[Leaving, list[bytes]]], future: asyncio.Future[None]) -> None:
        exc = future.exception()
        if exc is not None:
            # What the system has not written by now it may have forgotten: the next try would succeed for nothing
            # (https://wiki.postgresql.org/wiki/Fsync_Errors). This process knows all of it.
            logger.error("the journal cannot be forced to the disk (%s): it is written anew", exc)
            self._waiting = batch + self._waiting
            self._write_anew()
            return
        self._under_way = False
        for conn, frames in batch:
            conn.write(frames)
        if self._waiting:
            self._begin()

    def _write_anew(self) -> None:
        try:
            self._rewrite()
        except OSError as exc:
            logger.error("the journal cannot be written anew (%s): nothing is acknowledged until it can", exc)
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._write_anew)
            return
        self._begin()


def _force(descriptor: int) -> None:
    try:
        force(descriptor)
    finally:
        os.close(descriptor)
