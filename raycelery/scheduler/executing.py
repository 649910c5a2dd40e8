"""Executors in the scheduler: where they are, what they can take, when they start and end."""

from __future__ import annotations

import math

from raycelery.scheduler.lanes import SETTLEMENT, ExecutorState, LaneState
from raycelery.scheduler.model import Kill, Lane, Message, Recall, SettleReason, Start, Stop
from raycelery.scheduler.nodes import Node
from raycelery.scheduler.state import State

#: An executor whose time to end has come while there is something to be given out is looked at again after this long.
_LOOK_AGAIN_SECONDS = 0.05


class Executing(State):
    """Keeps executors where the rest of the scheduler finds them."""

    #: An executor has become idle, or a lane starves, since this was last cleared.
    seeking = False

    # -- start and end ------------------------------------------------------------------------------------------

    def start(self, lane: LaneState, node: Node | None, *, guest: bool = False) -> int:
        """Start an executor, on ``node`` or, where none has room, wherever Ray finds some one day.

        Arguments:
            guest: another application has the CPUs, so that Ray is not to be asked for them.
        """
        borrowed = node is not None and not guest and lane.request.get("CPU", 0) > node.free_of_loans()
        executor = ExecutorState(next(self._numbers), lane, borrowed, guest)
        self.executors[executor.id] = executor
        lane.executors[executor.id] = None
        lane.starting.add(executor.id)
        self.count(executor)
        if node is not None:
            self.place(executor, node)
        name = None if node is None else node.id
        self.log.append((self.now, "start", executor.id, lane.key, name))
        self.out.append(Start(executor.id, lane.lane, name, borrowed or guest))
        return executor.id

    def start_settlement(self, app: str) -> None:
        """Start an executor that needs no CPU and does an application's bookkeeping, unless there is one."""
        key = f"{SETTLEMENT}{app}"
        self.known_lanes.setdefault(key, Lane(key=key, request={}, app=app))
        clerk = self.lane(key)
        if not clerk.executors and self.now >= clerk.not_before:
            self.start(clerk, None)

    def stop(self, executor: ExecutorState) -> None:
        """Ask an executor that has nothing to do to end."""
        if executor.alive():
            executor.stopping = True
            self.leave(executor)
            self.file(executor)
            self.log.append((self.now, "stop", executor.id))
            self.out.append(Stop(executor.id))

    def kill(self, executor: ExecutorState, seq: int, settle_reason: SettleReason, reason: str) -> None:
        """End an executor at once for the sake of the message it runs."""
        if executor.killed is None:
            executor.killed = (seq, settle_reason, reason)
            self.leave(executor)
            self.file(executor)
            self.log.append((self.now, "kill", executor.id, reason))
            self.out.append(Kill(executor.id, reason))

    def remove(self, number: int) -> ExecutorState | None:
        """Forget an executor that has ended; what it was given is still its own."""
        executor = self.executors.pop(number, None)
        if executor is None:
            return None
        lane = executor.lane
        del lane.executors[number]
        lane.starting.discard(number)
        lane.ahead.discard(number)
        lane.ready -= executor.ready
        self.ask_no_more(executor)
        self.count(executor)
        self.timers.cancelled(executor.idle_armed + executor.watched)
        executor.stopping = True
        self.file(executor)
        self.unplace(executor)
        self.dirty[lane.key] = None
        return executor

    def count(self, executor: ExecutorState) -> None:
        """Count an executor in its lane's share as it counts now: not at all where it uses no CPU."""
        lane = executor.lane
        here = executor.id in self.executors and not executor.blocked
        share = lane.weight if here and not (executor.resting or executor.paused) else 0
        leaving = share if executor.leaving else 0
        slots = int(here and not lane.for_settlement)
        lane.share += share - executor.counted[0]
        lane.leaving += leaving - executor.counted[1]
        self.slots += slots - executor.counted[2]
        executor.counted = (share, leaving, slots)

    def leave(self, executor: ExecutorState) -> None:
        """Note that an executor is about to end."""
        executor.leaving = True
        self.count(executor)

    def ask(self, executor: ExecutorState, key: str) -> None:
        """Have an executor end after its message, for the sake of another lane."""
        executor.yielding = key
        if key:
            self.lanes[key].asked[executor.id] = None
        self.leave(executor)
        self.file(executor)

    def ask_no_more(self, executor: ExecutorState) -> None:
        """Let it go on."""
        if executor.yielding is not None:
            lane = self.lanes.get(executor.yielding)
            if lane is not None:
                lane.asked.pop(executor.id, None)
            executor.yielding = None
            if executor.alive():
                executor.leaving = False
                self.count(executor)

    # -- where it is --------------------------------------------------------------------------------------------

    def place(self, executor: ExecutorState, node: Node) -> None:
        """Take the executor's resources from a node."""
        executor.node = node.id
        node.executors[executor.id] = None
        self.nodes.add(node, executor.lane.request, -1)
        cpus = executor.lane.request.get("CPU", 0)
        node.borrowed += cpus * (executor.borrowed and not executor.resting)
        node.lent += cpus * executor.lends()
        if executor.lends() or executor.resting:
            self.nodes.add(node, {"CPU": cpus})

    def unplace(self, executor: ExecutorState) -> None:
        """Give them back."""
        node = self.node_of(executor)
        if node is not None:
            cpus = executor.lane.request.get("CPU", 0)
            del node.executors[executor.id]
            node.borrowed -= cpus * (executor.borrowed and not executor.resting)
            node.lent -= cpus * executor.lends()
            if executor.lends() or executor.resting:
                self.nodes.add(node, {"CPU": cpus}, -1)
            self.nodes.add(node, executor.lane.request)
        executor.node = None

    def set_waiting(self, executor: ExecutorState, *, blocked: bool | None = None, paused: bool | None = None) -> None:
        """Note whether an executor waits for subtasks, and whether it is paused; its CPUs are lent accordingly."""
        before = executor.lends()
        executor.blocked = executor.blocked if blocked is None else blocked
        executor.paused = executor.paused if paused is None else paused
        self.count(executor)
        node, change = self.node_of(executor), executor.lends() - before
        if node is not None and change:
            cpus = executor.lane.request.get("CPU", 0)
            node.lent += change * cpus
            self.nodes.add(node, {"CPU": cpus}, change)

    def node_of(self, executor: ExecutorState) -> Node | None:
        """Return the node whose resources an executor holds."""
        node = self.nodes.get(executor.node)
        return node if node is not None and executor.id in node.executors else None

    def move(self, executor: ExecutorState, node_id: str) -> None:
        """Note where an executor really is."""
        if executor.node != node_id or self.node_of(executor) is None:
            self.unplace(executor)
            node = self.nodes.get(node_id)
            if node is not None:
                self.place(executor, node)
            executor.node = node_id

    def rest(self, executor: ExecutorState) -> None:
        """Have an executor that has nothing to do give CPUs back that it had on loan.

        It stays, for the next time that its node has CPUs to lend: parents that wait for one child after the other
        would have an executor started for each.
        """
        if executor.id in self.idle:
            del self.idle[executor.id], executor.lane.idle[executor.id]
        self.helpers[executor.lane.lane.app].pop(executor.id, None)
        executor.lane.resting[executor.id] = None
        self._set_resting(executor, True)

    def wake(self, executor: ExecutorState) -> None:
        """Have an executor that rests take its CPUs again."""
        self._set_resting(executor, False)
        self.file(executor)

    def _set_resting(self, executor: ExecutorState, resting: bool) -> None:
        executor.resting = resting
        self.count(executor)
        node = self.node_of(executor)
        if node is not None:
            cpus = executor.lane.request.get("CPU", 0)
            node.borrowed += -cpus if resting else cpus
            self.nodes.add(node, {"CPU": cpus}, 1 if resting else -1)

    # -- what it can take ---------------------------------------------------------------------------------------

    def file(self, executor: ExecutorState) -> None:
        """Put an executor where those are found that can take as much as it can now."""
        lane, number = executor.lane, executor.id
        usable = executor.usable()
        if usable and not executor.outstanding and not executor.spent:
            if number not in self.idle and not executor.resting:
                self._now_idle(executor)
            return
        lane.resting.pop(number, None)
        if number in self.idle:
            del self.idle[number], lane.idle[number]
        if usable and executor.outstanding and not (executor.long or executor.blocked or lane.lane.one_shot):
            lane.quick[number] = None
            few = len(executor.outstanding) <= executor.refill
            if few and not (executor.recalling or self._must_end(executor) or self._overdraws(executor)):
                if number not in lane.top_up:
                    lane.top_up[number] = None
                    if lane.waiting:
                        self.dirty[lane.key] = None
            else:
                lane.top_up.pop(number, None)
            self._help(executor, len(executor.outstanding) < self.policy.max_batch and not executor.recalling)
            if not executor.watched:
                executor.watched = True
                self.timers.add(executor.head_since + self.policy.recall_after, "watch", number)
        else:
            lane.quick.pop(number, None)
            lane.top_up.pop(number, None)
            self.helpers[lane.lane.app].pop(number, None)
            self.crowded[lane.lane.app].pop(number, None)

    def _now_idle(self, executor: ExecutorState) -> None:
        lane, number = executor.lane, executor.id
        lane.quick.pop(number, None)
        lane.top_up.pop(number, None)
        lane.resting.pop(number, None)
        if self._must_end(executor):
            self.stop(executor)
            return
        executor.idle_since = self.now
        if not executor.idle_armed:
            executor.idle_armed = True
            self.timers.add(self.now + self.policy.idle_seconds, "idle", number)
        if self._overdraws(executor):
            self.rest(executor)
            return
        self.idle[number] = lane.idle[number] = None
        if not lane.lane.one_shot:
            self._help(executor, True)
        if lane.waiting:
            self.dirty[lane.key] = None
        self.seeking = True

    def _help(self, executor: ExecutorState, free: bool) -> None:
        app, number = executor.lane.lane.app, executor.id
        if not free:
            self.helpers[app].pop(number, None)
            self.crowded[app][number] = None
        elif number not in self.helpers[app]:
            self.crowded[app].pop(number, None)
            self.helpers[app][number] = None
            if app in self.settling_lanes:
                self.dirty.update(self.settling_lanes[app])

    def _must_end(self, executor: ExecutorState) -> bool:
        if executor.yielding is None:
            return False
        if not executor.lane.waiting and not executor.outstanding:
            return True
        if not executor.yielding:
            # Another application waits for Ray to give it the room, and does not know of slices.
            return True
        held = self.now - executor.ready_at
        if held < self.policy.slice_seconds:
            return False
        return held + self._backlog_seconds(executor.lane) > self.policy.finish_seconds

    def _backlog_seconds(self, lane: LaneState) -> float:
        """Return how long the lane's executors need for what waits; infinity where that is not known."""
        seconds, counted = 0.0, 0
        for stream in lane.rotation.some():
            seen = self.runtimes.get(stream.task)
            if seen is None:
                break
            counted += stream.size
            seconds += stream.size * seen[1]
        return math.inf if counted < lane.waiting else seconds / max(1, lane.ready)

    def _overdraws(self, executor: ExecutorState) -> bool:
        node = self.node_of(executor) if executor.borrowed else None
        return node is not None and node.overdrawn()

    # -- what it was given --------------------------------------------------------------------------------------

    def give(self, executor: ExecutorState, messages: list[Message]) -> None:
        """Hand messages to an executor; the caller sends them."""
        now, outstanding = self.now, executor.outstanding
        if not outstanding:
            executor.head_since = now
            executor.begun = False
        for message in messages:
            message.place, message.executor, message.assigned = "executor", executor.id, now
            outstanding[message.seq] = message
            if message.settle_reason is not None:
                message.settling = True
            elif message.time_limit:
                executor.long.add(message.seq)
                self.timers.add(now + message.time_limit, "time_limit", executor.id, message.seq)
            elif not self.short(message.task):
                executor.long.add(message.seq)
        executor.refill = max(1, len(outstanding) // 2)
        executor.spent = executor.lane.lane.one_shot
        self.file(executor)
        self.log.append((now, "assign", executor.id, len(messages), messages[0].task))

    def take_from(self, executor: ExecutorState, seq: int) -> Message | None:
        """Take a message from an executor that has ended it, given it back, or died."""
        first = next(iter(executor.outstanding), None)
        message = executor.outstanding.pop(seq, None)
        if message is not None:
            executor.long.discard(seq)
            if seq == first:
                executor.head_since = self.now
            self.release(message)
            if message.time_limit and not message.settling:
                self.timers.cancelled()
            message.place = ""
        return message

    def recall(self, executor: ExecutorState) -> None:
        """Have an executor give back what it has not begun."""
        if not executor.recalling and executor.usable():
            executor.recalling = True
            self.file(executor)
            self.out.append(Recall(executor.id))

    # -- timers -------------------------------------------------------------------------------------------------

    def on_idle(self, number: int, token: None) -> None:
        """See whether an executor has been idle for long enough."""
        executor = self.executors[number]
        executor.idle_armed = False
        if number in self.idle or executor.resting:
            due = executor.idle_since + self.policy.idle_seconds
            if due <= self.now and executor.lane.key not in self.dirty:
                self.stop(executor)
            else:
                # What has come for its lane is given out first, even where executors are to end at once.
                executor.idle_armed = True
                self.timers.add(max(due, self.now + _LOOK_AGAIN_SECONDS), "idle", number)

    def on_watch(self, number: int, token: None) -> None:
        """See whether an executor's first message runs longer than was expected."""
        executor = self.executors[number]
        executor.watched = False
        if number not in executor.lane.quick:
            return
        due = executor.head_since + self.policy.recall_after
        if due <= self.now:
            executor.long.add(next(iter(executor.outstanding)))
            self.file(executor)
            if len(executor.outstanding) > 1:
                self.recall(executor)
            lane = executor.lane
            self.dirty[lane.key] = None
            self.dirty.update(self.settling_lanes.get(lane.lane.app, {}))
        else:
            executor.watched = True
            self.timers.add(due, "watch", number)

    def on_time_limit(self, number: int, seq: int) -> None:
        """End an executor whose message has passed its hard time limit."""
        self.kill(self.executors[number], seq, "timeout", "its hard time limit passed")
