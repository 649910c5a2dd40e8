"""The executors that have been started: Ray's handles of them, and their connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import ray

from raycelery.dispatcher import executor_processes, steady
from raycelery.dispatcher.begun import Place, last_begun, remove
from raycelery.dispatcher.ledger import lost
from raycelery.protocol import framing
from raycelery.protocol.codec import Tagged
from raycelery.protocol.records import Came, Ended
from raycelery.reasons import reason_of
from raycelery.scheduler import events
from raycelery.scheduler.instructions import Start

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.journal import Journal
    from raycelery.protocol.definitions import DefineApplication
    from raycelery.scheduler.scheduler import Scheduler


#: Seconds that reports of an executor that has died may take to arrive. (A node that was cut off closes nothing.)
REPORTS_SECONDS = 5.0


class ExecutorManager:
    """Starts executors, ends them, and tells the scheduler of those that ended.

    Arguments:
        name: the application's.
        actors: starts them.
        apps: how they load the application, by the keys of its definitions.
        scheduler: decides on them.
        on_change: called when there may be something for the scheduler to decide.
        journal: told of those that come and end.
        came: kept up to date: where those that are connected say what they have begun.
    """

    def __init__(
        self,
        name: str,
        actors: executor_processes.Actors,
        apps: Mapping[str, DefineApplication],
        scheduler: Scheduler,
        on_change: Callable[[], None],
        journal: Journal,
        came: dict[int, Came],
    ) -> None:
        self._name = name
        self._actors = actors
        self._apps = apps
        self._scheduler = scheduler
        self._on_change = on_change
        self._journal = journal
        self._came = came
        self.handles: dict[int, executor_processes.Handle] = {}
        #: Connections of those that have started and not ended.
        self.connected: dict[int, Connection] = {}

    def start(self, instruction: Start, endpoint: tuple[str, int, bytes]) -> None:
        """Start the executor that the scheduler decided on; it connects to ``endpoint``."""
        executor_id = instruction.executor_id
        app = self._apps.get(instruction.lane.app)
        if app is None:
            self._failed(executor_id, "the application was not described to the dispatcher")
            return
        try:
            handle = executor_processes.start(self._actors, self._name, instruction, app, endpoint)
        except (ValueError, TypeError, ray.exceptions.RayError) as exc:
            self._failed(executor_id, reason_of(exc))
            return
        self.handles[executor_id] = handle
        asyncio.get_running_loop().create_task(self._watch(executor_id, handle))

    def came(self, executor: int, conn: Connection) -> None:
        """Take note that an executor has connected, unless it was ended meanwhile."""
        if executor in self.handles:
            self.connected[executor] = conn
            came = self._came[executor] = Came(executor, conn.info.node, conn.info.begun)
            self._journal.append("", framing.pack(came))

    async def _watch(self, executor: int, handle: executor_processes.Handle) -> None:
        crashed = False
        try:
            reason = await handle.ended
        except ray.exceptions.RayError as exc:
            reason, crashed = reason_of(exc), executor_processes.crashed(exc)
        await self._after_reports(executor, reason or None, crashed)

    async def _after_reports(self, executor: int, reason: str | None, crashed: bool) -> None:
        """Take note that an executor has ended, once all that it reported is here and what it had begun is known."""
        conn = self.connected.get(executor)
        if conn is None:
            self.ended(executor, reason, crashed)
            return
        try:
            await asyncio.wait_for(conn.closed.wait(), REPORTS_SECONDS)
        except asyncio.TimeoutError:
            conn.abort()
        if executor not in self.handles:
            return  # it has said goodbye
        place = Place(conn.info.node, conn.info.begun)
        self.ended(executor, reason, crashed, (await last_begun([place]))[place])

    def _failed(self, executor: int, reason: str) -> None:
        self._scheduler.handle(events.ExecutorFailed(executor, reason), steady.now())
        self._on_change()

    def ended(self, executor: int, reason: str | None, crashed: bool = False, last_begun: int | None = None) -> None:
        """Take note that an executor has ended.

        Arguments:
            executor: the scheduler's number of it.
            reason: why; None: as it was told to.
            crashed: its process was killed or crashed.
            last_begun: the number of the message that it began last; None where its reports tell.
        """
        handle = self.handles.pop(executor, None)
        if handle is None:
            return
        handle.clean_up()
        conn = self.connected.pop(executor, None)
        scheduler, now = self._scheduler, steady.now()
        state = scheduler.view.executors.get(executor)
        given = [] if state is None else list(state.outstanding.values())
        if conn is None:
            scheduler.handle(events.ExecutorFailed(executor, reason or "it ended before it was ready", crashed), now)
        elif reason is None:
            scheduler.handle(events.ExecutorStopped(executor), now)
        else:
            if state is not None and not state.ready:
                reason = f"the process died while it loaded the application: {reason}"
            scheduler.handle(events.ExecutorLost(executor, reason, last_begun), now)
        came = self._came.pop(executor, None)
        if came is not None:
            for record in (*filter(None, map(lost, given)), Ended(executor)):
                self._journal.append("", framing.pack(record))
            place = Place(came.node, came.begun)
            self._journal.when_written(lambda: remove(place))
        self._on_change()

    def kill(self, executor: int) -> None:
        """End an executor at once."""
        handle = self.handles.get(executor)
        if handle is not None:
            handle.kill()

    def tell(self, executor: int, frame: Tagged) -> None:
        """Send an executor a frame, if it is connected."""
        conn = self.connected.get(executor)
        if conn is not None:
            conn.send(frame)

    def tell_those_of(self, app: str, frame: Tagged) -> None:
        """Send a frame to the executors that have loaded an application's definition."""
        for conn in self.connected.values():
            if conn.info.app == app:
                conn.send(frame)
