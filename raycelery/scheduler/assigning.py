"""Which message goes to which executor.

State and decisions; the events that change the state are in :mod:`raycelery.scheduler.scheduler`.
"""

from __future__ import annotations

from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.lanes import ExecutorState, LaneState
from raycelery.scheduler.model import Assign, Message
from raycelery.scheduler.queues import Stream

#: Queues whose turn it is with what cannot be shared that are passed over in one batch.
_SKIPS = 8


class Scheduling(Capacity):
    """Assigns what can be assigned."""

    def schedule(self) -> None:
        """Assign what can be assigned; start and stop executors for the rest."""
        while True:
            if self.roomy:
                self.use_room()
            if self.dirty:
                dirty, self.dirty = self.dirty, {}
                for key in dirty:
                    lane = self.lanes.get(key)
                    if lane is not None:
                        if lane.to_settle:
                            self._settle(lane)
                        self._serve(lane)
                self.hungry.update(dirty)
            elif not self.roomy:
                if self.hungry or self.room_changed():
                    self.feed()
                elif self.seeking:
                    self.seek()
                else:
                    return

    def _serve(self, lane: LaneState) -> None:
        """Give the lane's messages to its executors, as far as there are any with nothing else to do."""
        while lane.waiting:
            stream = self.next_stream(lane)
            if stream is None:
                return
            if lane.idle:
                # The one that was busy last: so those too many stay idle, and end.
                number = next(reversed(lane.idle))
            elif lane.top_up and self._may_share(stream):
                number = next(iter(lane.top_up))
            else:
                lane.missed = True
                return
            lane.missed = False
            executor = self.executors[number]
            batch = self._batch(lane, stream)
            self.give(executor, batch)
            self.out.append(Assign(number, batch))

    def _batch(self, lane: LaneState, stream: Stream) -> list[Message]:
        sharing = self._may_share(stream) and not lane.lane.one_shot
        batch = [self.take(lane, stream)]
        if not sharing:
            return batch
        policy = self.policy
        most = min(policy.max_batch, -(-lane.waiting // max(1, lane.ready)))
        seconds = self.runtimes[stream.task][1]
        skipped = 0
        while len(batch) < most and seconds < policy.batch_seconds and skipped < _SKIPS:
            following = self.next_stream(lane)
            if following is None:
                break
            if not self._may_share(following):
                # It waits for an executor of its own; the queues behind it may have short ones.
                skipped += 1
                lane.rotation.turn()
                continue
            seconds += self.runtimes[following.task][1]
            batch.append(self.take(lane, following))
        return batch

    def _may_share(self, stream: Stream) -> bool:
        """Return whether the stream's first message may be given to an executor together with others."""
        head = stream.head()
        return head is not None and not head.bridged and not head.time_limit and self.short(stream.task)

    def _settle(self, lane: LaneState) -> None:
        """Give messages that need bookkeeping to whoever can do it."""
        app = lane.lane.app
        helpers = self.helpers[app]
        while lane.to_settle:
            executor = self._helper(lane)
            if executor is None:
                if not self.crowded[app]:
                    self.start_settlement(app)
                return
            room = self.policy.max_batch - len(executor.outstanding)
            share = -(-len(lane.to_settle) // max(1, len(helpers)))
            batch = [lane.to_settle.popleft() for _ in range(min(room, share, len(lane.to_settle)))]
            self.give(executor, batch)
            self.out.append(Assign(executor.id, batch))
            if executor.id in helpers:
                # The next ones go to another, if there is another.
                helpers[executor.id] = helpers.pop(executor.id)
        del self.settling_lanes[app][lane.key]
        if not self.settling_lanes[app]:
            del self.settling_lanes[app]

    def _helper(self, lane: LaneState) -> ExecutorState | None:
        if lane.idle and not lane.lane.one_shot:
            return self.executors[next(reversed(lane.idle))]
        number = next(iter(self.helpers[lane.lane.app]), None)
        return None if number is None else self.executors[number]
