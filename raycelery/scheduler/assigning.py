"""Which message goes to which executor."""

from __future__ import annotations

from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.growth import Growth
from raycelery.scheduler.instructions import Assign
from raycelery.scheduler.lanes import Lanes, LaneState
from raycelery.scheduler.model import Message
from raycelery.scheduler.preemption import Preemption
from raycelery.scheduler.queues import Stream
from raycelery.scheduler.runtimes import Runtimes
from raycelery.scheduler.settlement import Settlement
from raycelery.scheduler.turn import Turn
from raycelery.scheduler.waiting import Waiting

#: Queues whose turn it is with what cannot be shared that are passed over in one batch.
_SKIPS = 8


class Assigning:
    """Assigns what can be assigned, and has executors started and ended for the rest.

    Arguments:
        turn: tells what has changed; collects the instructions.
        lanes: whose messages are assigned.
        waiting: which message is next.
        executors: that get them.
        runtimes: of tasks: what is short goes in batches.
        settlement: gives out bookkeeping.
        capacity: starts executors.
        preemption: ends executors.
        growth: has nodes added.
    """

    def __init__(
        self, turn: Turn, lanes: Lanes, waiting: Waiting, executors: Executors, runtimes: Runtimes,
        settlement: Settlement, capacity: Capacity, preemption: Preemption, growth: Growth,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._policy = turn.policy
        self._lanes = lanes
        self._waiting = waiting
        self._executors = executors
        self._runtimes = runtimes
        self._settlement = settlement
        self._capacity = capacity
        self._preemption = preemption
        self._growth = growth

    def run(self) -> None:
        """Go on until there is nothing more to be decided."""
        turn, active = self._turn, self._lanes.active
        while True:
            if turn.roomy:
                self._waiting.use_room()
            if turn.changed:
                changed, turn.changed = turn.changed, {}
                for key in changed:
                    lane = active.get(key)
                    if lane is not None:
                        if lane.to_settle:
                            self._settlement.settle(lane)
                        self._serve(lane)
                turn.hungry.update(changed)
            elif not turn.roomy:
                if turn.hungry or self._capacity.room_changed():
                    self._capacity.feed()
                elif turn.seeking:
                    self._preemption.seek()
                elif turn.growing:
                    self._growth.run()
                else:
                    return

    def _serve(self, lane: LaneState) -> None:
        """Give the lane's messages to its executors, as far as there are any with nothing else to do."""
        while lane.waiting:
            stream = self._waiting.next_stream(lane)
            if stream is None:
                return
            if lane.idle:
                # The one that was busy last: so those too many stay idle, and end.
                executor_id = next(reversed(lane.idle))
            elif lane.top_up and self._may_share(stream):
                executor_id = next(iter(lane.top_up))
            else:
                lane.missed = True
                return
            lane.missed = False
            batch = self._batch(lane, stream)
            self._executors.give(self._executors.all[executor_id], batch)
            self._turn.instructions.append(Assign(executor_id, batch))

    def _batch(self, lane: LaneState, stream: Stream) -> list[Message]:
        sharing = self._may_share(stream) and not lane.lane.one_shot
        batch = [self._waiting.take(lane, stream)]
        if not sharing:
            return batch
        policy = self._policy
        most = min(policy.max_batch, -(-lane.waiting // max(1, lane.ready)))
        seconds = self._seconds(stream)
        skipped = 0
        while len(batch) < most and seconds < policy.batch_seconds and skipped < _SKIPS:
            following = self._waiting.next_stream(lane)
            if following is None:
                break
            if not self._may_share(following):
                # It waits for an executor of its own; the queues behind it may have short ones.
                skipped += 1
                lane.rotation.turn()
                continue
            seconds += self._seconds(following)
            batch.append(self._waiting.take(lane, following))
        return batch

    def _seconds(self, stream: Stream) -> float:
        return self._runtimes.mean(stream.task) or 0.0

    def _may_share(self, stream: Stream) -> bool:
        """Return whether the stream's first message may be given to an executor together with others."""
        head = stream.head()
        if head is None or head.bridged or head.time_limit:
            return False
        return self._runtimes.short(stream.task, self._policy.batch_samples, self._policy.batch_seconds)
