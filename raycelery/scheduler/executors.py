"""All executors: their start and end, what they were given, and where those are found that can take more."""

from __future__ import annotations

import itertools
import math

from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.helpers import Helpers
from raycelery.scheduler.instructions import Kill, Recall, Start, Stop
from raycelery.scheduler.lanes import Lanes, LaneState
from raycelery.scheduler.limits import Limits
from raycelery.scheduler.model import Counted, Message, SettleReason
from raycelery.scheduler.nodes import Node
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.phases import ExecutorPhase, MessagePhase
from raycelery.scheduler.runtimes import Runtimes
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn
from raycelery.scheduler.waiting import Waiting

#: An executor whose time to end has come while there is something to be given out is looked at again after this long.
_LOOK_AGAIN_SECONDS = 0.05


class Executors:
    """Keeps executors where the rest of the scheduler finds them.

    Arguments:
        turn: told of lanes whose executors changed; collects the instructions.
        timers: for executors that stay idle, and for messages that run long, or too long.
        lanes: that executors serve.
        occupancy: what they take from nodes.
        waiting: where their messages came from.
        limits: that their messages count against.
        helpers: told of those that can do bookkeeping.
        runtimes: of tasks.
    """

    def __init__(
        self, turn: Turn, timers: Timers, lanes: Lanes, occupancy: Occupancy, waiting: Waiting, limits: Limits,
        helpers: Helpers, runtimes: Runtimes,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._policy = turn.policy
        self._timers = timers
        self._lanes = lanes
        self._occupancy = occupancy
        self._waiting = waiting
        self._limits = limits
        self._helpers = helpers
        self._runtimes = runtimes
        self._ids = itertools.count(1)
        self._idle_for_long = Kind(self._on_idle, lambda executor_id, _: executor_id in self.all)
        self._runs_long = Kind(self._on_watch, lambda executor_id, _: executor_id in self.all)
        self._time_limit = Kind(self._on_time_limit, self._has)
        self.all: dict[int, ExecutorState] = {}
        #: Those whose processes have not shown up yet, the one first that was asked for first.
        self.unconnected: dict[int, None] = {}
        #: Those that could be given something at once, the longest idle first.
        self.idle: dict[int, None] = {}

    def _has(self, executor_id: int, seq: int) -> bool:
        executor = self.all.get(executor_id)
        return executor is not None and seq in executor.outstanding

    # -- start and end ------------------------------------------------------------------------------------------

    def start(
        self, lane: LaneState, node: Node | None, *, leased: bool = False, ahead: bool = False,
        not_on: tuple[str, ...] = (),
    ) -> int:  # fmt: skip
        """Start an executor, on ``node`` or, where none has room, wherever Ray finds some one day.

        Arguments:
            leased: another application has the CPUs, so that Ray is not to be asked for them.
            ahead: it is for a node that has yet to come.
            not_on: nodes that it must not run on.
        """
        backfilled = node is not None and not leased and lane.request.get("CPU", 0) > node.free_for_ray()
        executor = ExecutorState(next(self._ids), lane, backfilled=backfilled, leased=leased, now=self._turn.now)
        self.all[executor.id] = executor
        lane.executors[executor.id] = None
        lane.starting.add(executor.id)
        if ahead:
            self.set_ahead(executor, True)
        else:
            self.unconnected[executor.id] = None
            self._occupancy.count(executor)
        if node is not None:
            self._occupancy.place(executor, node)
        name = None if node is None else node.id
        self._turn.note("start", executor.id, lane.key, name)
        self._turn.instructions.append(Start(executor.id, lane.lane, name, backfilled or leased, not_on))
        return executor.id

    def set_ahead(self, executor: ExecutorState, ahead: bool) -> None:
        """Note whether an executor can start only once a node has come: so long it counts nowhere."""
        executor.ahead = ahead
        (executor.lane.ahead.add if ahead else executor.lane.ahead.discard)(executor.id)
        self._occupancy.count(executor)

    def book(self, executor: ExecutorState, node: Node) -> None:
        """Take an executor that was asked for ahead to start on a node that has come, as Ray will have it."""
        self._occupancy.move(executor, node.id)
        executor.started_at = executor.late_at = self._turn.now
        self.unconnected.pop(executor.id, None)  # it is now the youngest
        self.unconnected[executor.id] = None
        self.set_ahead(executor, False)
        self._turn.note("booked", executor.id, node.id)

    def connected(self, executor_id: int) -> None:
        """Take note that Ray has started an executor's process; it may have to load the application yet."""
        self.unconnected.pop(executor_id, None)

    def ready(self, executor: ExecutorState, node_id: str) -> None:
        """Take note that an executor has loaded the application, on a node."""
        lane = executor.lane
        self.connected(executor.id)
        executor.ready, executor.ready_at = True, self._turn.now
        if executor.phase is ExecutorPhase.STARTING:
            executor.move(ExecutorPhase.IDLE)
        lane.starting.discard(executor.id)
        if executor.ahead:
            self.set_ahead(executor, False)
            lane.infeasible_since = None
        lane.ready += 1
        lane.failures = 0
        self._occupancy.move(executor, node_id)
        self._turn.note("ready", executor.id, node_id)
        self.file(executor)
        self._turn.changed[lane.key] = None

    def stop(self, executor: ExecutorState) -> None:
        """Ask an executor that has nothing to do to end."""
        if executor.alive():
            executor.move(ExecutorPhase.STOPPING)
            self._leave(executor)
            self.file(executor)
            if executor.lane.waiting:
                # Others may be needed in its place.
                self._turn.changed[executor.lane.key] = None
            self._turn.note("stop", executor.id)
            self._turn.instructions.append(Stop(executor.id))

    def kill(self, executor: ExecutorState, seq: int, settle_reason: SettleReason, reason: str) -> None:
        """End an executor at once for the sake of the message it runs."""
        if executor.killed is None:
            executor.killed = (seq, settle_reason, reason)
            executor.move(ExecutorPhase.KILLED)
            self._leave(executor)
            self.file(executor)
            self._turn.note("kill", executor.id, reason)
            self._turn.instructions.append(Kill(executor.id, reason))

    def remove(self, executor_id: int) -> ExecutorState | None:
        """Forget an executor that has ended; what it was given is still its own."""
        executor = self.all.pop(executor_id, None)
        if executor is None:
            return None
        self.connected(executor_id)
        lane = executor.lane
        del lane.executors[executor_id]
        lane.starting.discard(executor_id)
        lane.ahead.discard(executor_id)
        lane.ready -= executor.ready
        self.ask_no_more(executor)
        executor.move(ExecutorPhase.ENDED)
        self._occupancy.count(executor)
        self._timers.cancelled(executor.idle_armed + executor.watched)
        self.file(executor)
        self._occupancy.unplace(executor)
        self._turn.changed[lane.key] = None
        return executor

    def _leave(self, executor: ExecutorState) -> None:
        executor.leaving = True
        self._occupancy.count(executor)

    def ask(self, executor: ExecutorState, key: str) -> None:
        """Have an executor end after its message, for the sake of another lane, or ("") of another application."""
        executor.yielding = key
        if key:
            self._lanes.active[key].asked[executor.id] = None
        self._leave(executor)
        self.file(executor)

    def ask_no_more(self, executor: ExecutorState) -> None:
        """Let it go on."""
        if executor.yielding is not None:
            lane = self._lanes.active.get(executor.yielding)
            if lane is not None:
                lane.asked.pop(executor.id, None)
            executor.yielding = None
            if executor.alive():
                executor.leaving = False
                self._occupancy.count(executor)

    def rest(self, executor: ExecutorState) -> None:
        """Have a backfilled executor that has nothing to do give its CPUs back.

        It stays, for the next time that its node has CPUs for it: parents that wait for one child after the other
        would have an executor started for each.
        """
        if executor.id in self.idle:
            del self.idle[executor.id], executor.lane.idle[executor.id]
        self._helpers.free[executor.lane.lane.app].pop(executor.id, None)
        executor.lane.resting[executor.id] = None
        self._occupancy.set_resting(executor, True)

    def wake(self, executor: ExecutorState) -> None:
        """Have an executor that rests take its CPUs again."""
        self._occupancy.set_resting(executor, False)
        self.file(executor)

    # -- what it can take ---------------------------------------------------------------------------------------

    def short(self, task: str) -> bool:
        """Return whether runs of ``task`` are known to be short."""
        return self._runtimes.short(task, self._policy.batch_samples, self._policy.batch_seconds)

    def file(self, executor: ExecutorState) -> None:
        """Put an executor where those are found that can take as much as it can now."""
        lane, executor_id = executor.lane, executor.id
        if executor.free():
            if executor_id not in self.idle and not executor.resting:
                self._now_idle(executor)
            return
        lane.resting.pop(executor_id, None)
        if executor_id in self.idle:
            del self.idle[executor_id], lane.idle[executor_id]
        busy = executor.phase is ExecutorPhase.BUSY and not executor.paused
        if busy and not (executor.long or executor.blocked or lane.lane.one_shot):
            lane.quick[executor_id] = None
            few = len(executor.outstanding) <= executor.refill
            if few and not (executor.recalling or self._must_end(executor) or self._occupancy.overdraws(executor)):
                if executor_id not in lane.top_up:
                    lane.top_up[executor_id] = None
                    if lane.waiting:
                        self._turn.changed[lane.key] = None
            else:
                lane.top_up.pop(executor_id, None)
            self._helpers.offer(executor, len(executor.outstanding) < self._policy.max_batch and not executor.recalling)
            if not executor.watched:
                executor.watched = True
                self._timers.add(executor.head_since + self._policy.recall_after, self._runs_long, executor_id)
        else:
            lane.quick.pop(executor_id, None)
            lane.top_up.pop(executor_id, None)
            self._helpers.withdraw(executor)

    def _now_idle(self, executor: ExecutorState) -> None:
        lane, executor_id = executor.lane, executor.id
        lane.quick.pop(executor_id, None)
        lane.top_up.pop(executor_id, None)
        lane.resting.pop(executor_id, None)
        if self._must_end(executor):
            self.stop(executor)
            return
        executor.idle_since = self._turn.now
        if not executor.idle_armed:
            executor.idle_armed = True
            self._timers.add(self._turn.now + self._policy.idle_seconds, self._idle_for_long, executor_id)
        if self._occupancy.overdraws(executor):
            self.rest(executor)
            return
        self.idle[executor_id] = lane.idle[executor_id] = None
        if not lane.lane.one_shot:
            self._helpers.offer(executor, True)
        if lane.waiting:
            self._turn.changed[lane.key] = None
        self._turn.seeking = True

    def _must_end(self, executor: ExecutorState) -> bool:
        if executor.yielding is None:
            return False
        if not executor.lane.waiting and not executor.outstanding:
            return True
        if not executor.yielding:
            # Another application waits for Ray to give it the room, and does not know of slices.
            return True
        held = self._turn.now - executor.ready_at
        if held < self._policy.slice_seconds:
            return False
        return held + self._backlog_seconds(executor.lane) > self._policy.finish_seconds

    def _backlog_seconds(self, lane: LaneState) -> float:
        """Return how long the lane's executors need for what waits; infinity where that is not known."""
        seconds, counted = 0.0, 0
        for stream in lane.rotation.some():
            mean = self._runtimes.mean(stream.task)
            if mean is None:
                break
            counted += stream.size
            seconds += stream.size * mean
        return math.inf if counted < lane.waiting else seconds / max(1, lane.ready)

    # -- what it was given --------------------------------------------------------------------------------------

    def give(self, executor: ExecutorState, messages: list[Message]) -> None:
        """Hand messages to an executor; the caller sends them."""
        now, outstanding = self._turn.now, executor.outstanding
        if executor.resting:
            self._occupancy.set_resting(executor, False)
        if not outstanding:
            executor.head_since = now
            executor.begun = False
            executor.move(ExecutorPhase.BUSY)
        task, short = "", False
        for message in messages:
            message.executor_id, message.assigned = executor.id, now
            outstanding[message.seq] = message
            if message.settle_reason is not None:
                message.move(MessagePhase.SETTLING)
                continue
            message.move(MessagePhase.ASSIGNED)
            if message.time_limit:
                executor.long.add(message.seq)
                self._timers.add(now + message.time_limit, self._time_limit, executor.id, message.seq)
                continue
            if message.task != task:  # those of a batch are mostly of one task
                task, short = message.task, self.short(message.task)
            if not short:
                executor.long.add(message.seq)
        executor.refill = max(1, len(outstanding) // 2)
        self.file(executor)
        self._turn.note("assign", executor.id, len(messages), messages[0].task)

    def take_from(self, executor: ExecutorState, seq: int) -> Message | None:
        """Take a message from an executor that has ended it, given it back, or died."""
        first = next(iter(executor.outstanding), None)
        message = executor.outstanding.pop(seq, None)
        if message is not None:
            executor.long.discard(seq)
            if seq == first:
                executor.head_since = self._turn.now
            if not executor.outstanding and executor.phase is ExecutorPhase.BUSY:
                executor.move(ExecutorPhase.SPENT if executor.lane.lane.one_shot else ExecutorPhase.IDLE)
            if message.counted is not Counted.NOWHERE:
                self._limits.uncount(message, self._waiting.stream_of(message).limits)
            if message.time_limit and message.phase is MessagePhase.ASSIGNED:
                self._timers.cancelled()
            message.move(MessagePhase.TAKEN)
        return message

    def recall(self, executor: ExecutorState) -> None:
        """Have an executor give back what it has not begun."""
        if not executor.recalling and executor.usable():
            executor.recalling = True
            self.file(executor)
            self._turn.instructions.append(Recall(executor.id))

    def block(self, executor: ExecutorState, running: Message) -> None:
        """Have others use the CPUs of an executor: what it runs waits for its subtasks."""
        executor.begun = True
        self._occupancy.set_waiting(executor, blocked=True)
        if running.counted is not Counted.NOWHERE:
            self._limits.count_task_only(running, self._waiting.stream_of(running).limits)

    def unblock(self, executor: ExecutorState) -> None:
        """Have an executor use its CPUs again; those that were backfilled on them rest where they can."""
        if not executor.blocked:
            return
        self._occupancy.set_waiting(executor, blocked=False)
        running = executor.running()
        if running is not None and running.counted is not Counted.NOWHERE:
            self._limits.count_again(running, self._waiting.stream_of(running).limits)
        node = self._occupancy.node_of(executor)
        if node is not None:
            for idle in [self.all[executor_id] for executor_id in node.executors if executor_id in self.idle]:
                if self._occupancy.overdraws(idle):
                    self.rest(idle)
        self.file(executor)

    # -- timers -------------------------------------------------------------------------------------------------

    def _on_idle(self, executor_id: int, token: None) -> None:
        """See whether an executor has been idle for long enough."""
        executor = self.all[executor_id]
        executor.idle_armed = False
        if executor_id in self.idle or executor.resting:
            due = executor.idle_since + self._policy.idle_seconds
            if due <= self._turn.now and executor.lane.key not in self._turn.changed:
                self.stop(executor)
            else:
                # What has come for its lane is given out first, even where executors are to end at once.
                executor.idle_armed = True
                self._timers.add(max(due, self._turn.now + _LOOK_AGAIN_SECONDS), self._idle_for_long, executor_id)

    def _on_watch(self, executor_id: int, token: None) -> None:
        """See whether an executor's first message runs longer than was expected."""
        executor = self.all[executor_id]
        executor.watched = False
        if executor_id not in executor.lane.quick:
            return
        due = executor.head_since + self._policy.recall_after
        if due <= self._turn.now:
            executor.long.add(next(iter(executor.outstanding)))
            self.file(executor)
            if len(executor.outstanding) > 1:
                self.recall(executor)
            self._turn.changed[executor.lane.key] = None
            self._helpers.look_again(executor.lane.lane.app)
        else:
            executor.watched = True
            self._timers.add(due, self._runs_long, executor_id)

    def _on_time_limit(self, executor_id: int, seq: int) -> None:
        """End an executor whose message has passed its hard time limit."""
        self.kill(self.all[executor_id], seq, "timeout", "its hard time limit passed")
