"""Hands on what tasks print and log: to whoever submitted them, and to whoever follows an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from raycelery.protocol import framing

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher
    from raycelery.dispatcher.connection import Connection

#: Bytes that may wait for a process to read them; what comes meanwhile is not for it.
UNSENT_BYTES = 4_000_000


class Logs:
    """Knows who looks at what; lines are not unpacked here, nor kept: executors write them to files.

    Arguments:
        dispatcher: whose.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        #: Processes that look at what their own tasks say, by their id.
        self._clients: dict[str, Connection] = {}
        #: Those that follow all tasks (None) or one.
        self._followers: dict[Connection, str | None] = {}
        #: Frames that were left out since the last one that was not.
        self._left_out: dict[Connection, int] = {}

    @property
    def followed(self) -> bool:
        """Whether executors are to send everything."""
        return bool(self._followers)

    def came(self, conn: Connection) -> None:
        """Take note of a process that says who it is."""
        if conn.info.get("logs"):
            self._clients[conn.source] = conn

    def gone(self, conn: Connection) -> None:
        """Take note that a process is gone."""
        if self._clients.get(conn.source) is conn:
            del self._clients[conn.source]
        self._left_out.pop(conn, None)
        if conn in self._followers:
            del self._followers[conn]
            self._tell()

    def on_frame(self, conn: Connection, frame: tuple[Any, ...]) -> None:
        """Take lines from an executor, or the wish to follow a task."""
        if frame[0] == "follow":
            self._followers[conn] = frame[1]
            self._tell()
            return
        _, to, file, lines, left_out, ids = frame
        if isinstance(to, tuple):
            looking = cast("list[Connection]", self._dispatcher.bridge_jobs.connections_of(*to))
        else:
            client = self._clients.get(to)
            looking = [] if client is None else [client]
        looking += [one for one, task_id in self._followers.items() if task_id is None or task_id in ids]
        for one in looking:
            self._hand_on(one, conn, file, lines, left_out)

    def _hand_on(self, to: Connection, conn: Connection, file: str, lines: bytes, left_out: int) -> None:
        if to.unsent() > UNSENT_BYTES:
            self._left_out[to] = self._left_out.get(to, 0) + 1
            return
        left_out += self._left_out.pop(to, 0)
        to.send(framing.pack("logs", conn.info.get("node"), file, lines, left_out))

    def _tell(self) -> None:
        frame = framing.pack("follow", self.followed)
        for conn in self._dispatcher.executor_manager.connected.values():
            conn.send(frame)
