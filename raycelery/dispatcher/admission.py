"""A disk that is full: clients' submissions wait outside, executors and results go on.

What is kept in reserve for the journal is used for what runs. Clients are told, and refuse further calls; what they had
sent before waits here unacknowledged, so that none of it is lost, and is taken when there is room again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from raycelery.dispatcher.reserve import Reserve
from raycelery.protocol.frames import Changes, Full

logger = logging.getLogger(__name__)

#: Seconds until a full disk is looked at again.
LOOK_SECONDS = 0.5


class Told(Protocol):
    """A connection."""

    #: Whether it is a client or a bridge, which are told of the journal.
    takes_word: bool

    def send(self, frame: Full) -> None:
        """Send a frame."""


Conn = TypeVar("Conn", bound=Told)


class Admission(Generic[Conn]):
    """Holds clients' frames back while the journal's disk is full.

    Arguments:
        reserve: is given up when the disk is full.
        where: the journal's path, for people.
        connections: all that there are.
        take: takes a client's frame.
    """

    def __init__(
        self,
        reserve: Reserve,
        where: str,
        connections: Collection[Conn],
        take: Callable[[Conn, Changes, bytes], None],
    ) -> None:
        self._reserve = reserve
        self._where = where
        self._connections = connections
        self._take = take
        #: Frames of clients, in the order in which they came.
        self._held: deque[tuple[Conn, Changes, bytes]] = deque()
        self.full = False

    def begin(self) -> None:
        """Keep room in reserve from now on."""
        if not self._reserve.hold():
            self._close()

    def disk_full(self) -> bool:
        """Take note that nothing can be written; return whether there is room now, which was kept in reserve."""
        given = self._reserve.give_up()
        if not self.full:
            self._close()
        return given

    def _close(self) -> None:
        logger.error(
            "the disk of the journal %s is full: new calls are refused, what was taken runs; free some room there",
            self._where,
        )
        self.full = True
        self._tell(Full(self._where))
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if not self._reserve.hold():
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
            return
        logger.warning("the disk of the journal %s has room again", self._where)
        self.full = False
        held, self._held = self._held, deque()
        for conn, changes, raw in held:
            self._take(conn, changes, raw)
        self._tell(Full(""))

    def _tell(self, frame: Full) -> None:
        for conn in self._connections:
            if conn.takes_word:
                conn.send(frame)

    def greet(self, conn: Conn) -> None:
        """Tell a client that has connected."""
        if self.full and conn.takes_word:
            conn.send(Full(self._where))

    def hold(self, conn: Conn, changes: Changes, raw: bytes) -> None:
        """Keep a client's frame until there is room."""
        self._held.append((conn, changes, raw))

    def gone(self, conn: Conn) -> None:
        """Forget what a client has sent that has disconnected: it sends all of it again."""
        self._held = deque(one for one in self._held if one[0] is not conn)
