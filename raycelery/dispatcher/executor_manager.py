"""The executors that have been started: Ray's handles of them, and their connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import ray

from raycelery.dispatcher import executor_processes
from raycelery.protocol.codec import Tagged
from raycelery.reasons import reason_of
from raycelery.scheduler import events
from raycelery.scheduler.instructions import Start

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.protocol.definitions import DefineApplication
    from raycelery.scheduler.scheduler import Scheduler


class ExecutorManager:
    """Starts executors, ends them, and tells the scheduler of those that ended.

    Arguments:
        name: the application's.
        actors: starts them.
        apps: how they load the application, by the keys of its definitions.
        scheduler: decides on them.
        on_change: called when there may be something for the scheduler to decide.
    """

    def __init__(
        self,
        name: str,
        actors: executor_processes.Actors,
        apps: Mapping[str, DefineApplication],
        scheduler: Scheduler,
        on_change: Callable[[], None],
    ) -> None:
        self._name = name
        self._actors = actors
        self._apps = apps
        self._scheduler = scheduler
        self._on_change = on_change
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

    async def _watch(self, executor: int, handle: executor_processes.Handle) -> None:
        try:
            reason = await handle.ended
        except ray.exceptions.RayError as exc:
            self.ended(executor, reason_of(exc), executor_processes.crashed(exc))
        except asyncio.CancelledError:
            raise
        else:
            self.ended(executor, reason or None)

    def _failed(self, executor: int, reason: str) -> None:
        self._scheduler.handle(events.ExecutorFailed(executor, reason), time.time())
        self._on_change()

    def ended(self, executor: int, reason: str | None, crashed: bool = False) -> None:
        """Take note that an executor has ended; without a reason, as it was told to."""
        if self.handles.pop(executor, None) is None:
            return
        conn = self.connected.pop(executor, None)
        scheduler, now = self._scheduler, time.time()
        if conn is None:
            scheduler.handle(events.ExecutorFailed(executor, reason or "it ended before it was ready", crashed), now)
        elif reason is None:
            scheduler.handle(events.ExecutorStopped(executor), now)
        else:
            state = scheduler.view.executors.get(executor)
            if state is not None and not state.ready:
                reason = f"the process died while it loaded the application: {reason}"
            scheduler.handle(events.ExecutorLost(executor, reason), now)
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
