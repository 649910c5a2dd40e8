"""Hands on what tasks print and log: to whoever submitted them, and to whoever follows an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from raycelery.protocol.frames import FollowLines, Lines, SendLines, TaskLines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raycelery.dispatcher.bridge_jobs import BridgeJobs
    from raycelery.dispatcher.connection import Connection

#: Bytes that may wait for a process to read them; what comes meanwhile is not for it.
UNSENT_BYTES = 4_000_000


class Logs:
    """Knows who looks at what; lines are not decoded here, nor kept: executors write them to files.

    Arguments:
        executors: the connections of those that there are.
        bridge_jobs: tells whose a bridge's message is.
    """

    def __init__(self, executors: Mapping[int, Connection], bridge_jobs: BridgeJobs) -> None:
        self._executors = executors
        self._bridge_jobs = bridge_jobs
        #: Processes that look at what their own tasks say, by their id.
        self._clients: dict[str, Connection] = {}
        #: Those that follow all tasks (None) or one.
        self._followers: dict[Connection, str | None] = {}
        #: Frames that were left out since the last one that was not.
        self._left_out: dict[Connection, int] = {}

    def greet(self, executor: Connection) -> None:
        """Tell an executor that has come if somebody follows all that is said."""
        if self._followers:
            executor.send(SendLines(True))

    def came(self, conn: Connection) -> None:
        """Take note of a process that says who it is."""
        if conn.info.logs:
            self._clients[conn.source] = conn

    def gone(self, conn: Connection) -> None:
        """Take note that a process is gone."""
        if self._clients.get(conn.source) is conn:
            del self._clients[conn.source]
        self._left_out.pop(conn, None)
        if conn in self._followers:
            del self._followers[conn]
            self._tell()

    def follow(self, conn: Connection, wish: FollowLines) -> None:
        """Take the wish to follow a task, or all."""
        self._followers[conn] = wish.task_id
        self._tell()

    def take(self, conn: Connection, said: TaskLines) -> None:
        """Hand on lines from an executor."""
        if said.of_bridge is not None:
            of = said.of_bridge
            looking = cast("list[Connection]", self._bridge_jobs.connections_of(of.seq, of.index))
        else:
            client = self._clients.get(said.to)
            looking = [] if client is None else [client]
        looking += [one for one, task_id in self._followers.items() if task_id is None or task_id in said.ids]
        for one in looking:
            self._hand_on(one, conn.info.node, said)

    def _hand_on(self, to: Connection, node: str, said: TaskLines) -> None:
        if to.unsent() > UNSENT_BYTES:
            self._left_out[to] = self._left_out.get(to, 0) + 1
            return
        to.send(Lines(node, said.file, said.lines, said.left_out + self._left_out.pop(to, 0)))

    def _tell(self) -> None:
        for conn in self._executors.values():
            conn.send(SendLines(bool(self._followers)))
