"""Which executors can do Celery's bookkeeping at once, and which lanes have some to be done."""

from __future__ import annotations

from collections import defaultdict

from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.lanes import LaneState
from raycelery.scheduler.turn import Turn


class Helpers:
    """Finds executors for bookkeeping, by application: any that has loaded it can do it.

    Arguments:
        turn: told of lanes whose bookkeeping can go on.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        #: Idle executors, and those with short work only; those of the latter that have too much of it.
        self.free: defaultdict[str, dict[int, None]] = defaultdict(dict)
        self.crowded: defaultdict[str, dict[int, None]] = defaultdict(dict)
        #: Lanes with bookkeeping to be done.
        self.lanes: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def offer(self, executor: ExecutorState, free: bool) -> None:
        """Take note of an executor that could do bookkeeping: at once, or else once it has less to do."""
        app, executor_id = executor.lane.lane.app, executor.id
        if not free:
            self.free[app].pop(executor_id, None)
            self.crowded[app][executor_id] = None
        elif executor_id not in self.free[app]:
            self.crowded[app].pop(executor_id, None)
            self.free[app][executor_id] = None
            if app in self.lanes:
                self._turn.changed.update(self.lanes[app])

    def withdraw(self, executor: ExecutorState) -> None:
        """Take note that an executor can do none."""
        app = executor.lane.lane.app
        self.free[app].pop(executor.id, None)
        self.crowded[app].pop(executor.id, None)

    def look_again(self, app: str) -> None:
        """Have the bookkeeping of an application looked at again."""
        self._turn.changed.update(self.lanes.get(app, {}))

    def done(self, lane: LaneState) -> None:
        """Take note that a lane has no more bookkeeping to be done."""
        app = lane.lane.app
        del self.lanes[app][lane.key]
        if not self.lanes[app]:
            del self.lanes[app]
