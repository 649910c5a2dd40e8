"""Celery's bookkeeping of messages that are not run: which executor does it."""

from __future__ import annotations

from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.helpers import Helpers
from raycelery.scheduler.instructions import Assign, Drop
from raycelery.scheduler.lanes import SETTLEMENT, Lanes, LaneState
from raycelery.scheduler.messages import Messages
from raycelery.scheduler.model import Lane, Message
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn


class Settlement:
    """Gives messages that need bookkeeping to whoever can do it; starts an executor for it where nobody can.

    Arguments:
        turn: collects the instructions.
        timers: for executors that are tried again later.
        messages: all.
        lanes: that have bookkeeping to be done.
        executors: that do it.
        helpers: those of them that can do it now.
    """

    def __init__(
        self, turn: Turn, timers: Timers, messages: Messages, lanes: Lanes, executors: Executors, helpers: Helpers
    ) -> None:
        self._turn = turn
        self._timers = timers
        self._messages = messages
        self._lanes = lanes
        self._executors = executors
        self._helpers = helpers
        self._try_again = Kind(lambda app, _: helpers.look_again(app))

    def settle(self, lane: LaneState) -> None:
        """Hand out a lane's bookkeeping, as far as there is anybody for it."""
        app = lane.lane.app
        helpers = self._helpers.free[app]
        while lane.to_settle:
            executor = self._helper(lane)
            if executor is None:
                if not self._helpers.crowded[app]:
                    self._start(app)
                return
            room = self._turn.policy.max_batch - len(executor.outstanding)
            share = -(-len(lane.to_settle) // max(1, len(helpers)))
            batch = [lane.to_settle.popleft() for _ in range(min(room, share, len(lane.to_settle)))]
            self._executors.give(executor, batch)
            self._turn.instructions.append(Assign(executor.id, batch))
            if executor.id in helpers:
                # The next ones go to another, if there is another.
                helpers[executor.id] = helpers.pop(executor.id)
        self._helpers.done(lane)

    def _helper(self, lane: LaneState) -> ExecutorState | None:
        if lane.idle and not lane.lane.one_shot:
            return self._executors.all[next(reversed(lane.idle))]
        executor_id = next(iter(self._helpers.free[lane.lane.app]), None)
        return None if executor_id is None else self._executors.all[executor_id]

    def _start(self, app: str) -> None:
        """Start an executor that needs no CPU and does an application's bookkeeping, unless there is one."""
        key = f"{SETTLEMENT}{app}"
        self._lanes.add(Lane(key=key, request={}, app=app))
        lane = self._lanes.get(key)
        if not lane.executors and self._turn.now >= lane.not_before:
            self._executors.start(lane, None)

    def try_again_at(self, app: str, at: float) -> None:
        """Have an application's bookkeeping looked at again, for which no executor has started so far."""
        self._timers.add(at, self._try_again, app)

    # -- what cannot be recorded --------------------------------------------------------------------------------

    def drop_all(self, app: str, reason: str) -> None:
        """Drop all that needs bookkeeping: no executor that could do it starts."""
        for key in self._helpers.lanes.pop(app, {}):
            lane = self._lanes.active[key]
            while lane.to_settle:
                message = lane.to_settle.popleft()
                message.move(MessagePhase.TAKEN)
                self.drop(message, f"{message.reason}; and no executor that could record it starts: {reason}")

    def drop(self, message: Message, reason: str) -> None:
        """Give a message up without any record in Celery; its callers are told."""
        message.reason = reason
        self._messages.done(message)
        self._turn.instructions.append(Drop(message))
