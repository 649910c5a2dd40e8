"""The brain's decisions: which message goes to which executor, which executors start and stop.

State and decisions; the events that change the state are in :mod:`raycelery.dispatcher.brain`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from typing import Any

from raycelery.dispatcher.lanes import ExecutorState, LaneState
from raycelery.dispatcher.limits import Limit, Rate
from raycelery.dispatcher.model import Assign, Decision, Lane, Message, Policy, Start, Stop
from raycelery.dispatcher.nodes import UNIT, Node, Nodes
from raycelery.dispatcher.queues import Stream

#: A backlog of short messages that would take less than this many seconds does not start another executor.
_START_SECONDS = 0.5
#: Lanes that are tried in one decision after none could start anything: the cost does not grow with their number.
_TRIES = 8


class Scheduling:
    """What the brain knows, and how it decides.

    Arguments:
        policy: what may be tuned.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.nodes = Nodes()
        self.lanes: dict[str, LaneState] = {}
        self.executors: dict[int, ExecutorState] = {}
        self.streams: dict[tuple[str, str, str], Stream] = {}
        self.limits: dict[str, Limit] = {}
        self.rates: dict[str, Rate] = {}
        #: Runs seen and their mean seconds, by task.
        self.runtimes: dict[str, tuple[int, float]] = {}
        self.waiting_by_queue: Counter[str] = Counter()
        #: Executors that can take bookkeeping at once, by application: idle ones, and those with short work only.
        self.helpers: defaultdict[str, dict[int, None]] = defaultdict(dict)
        #: Lanes with bookkeeping to be done, by application.
        self.verdict_lanes: defaultdict[str, dict[str, None]] = defaultdict(dict)
        #: Messages that were given up; the caller takes and clears them.
        self.dropped: list[Message] = []
        self.log: deque[tuple[Any, ...]] = deque(maxlen=2000)
        self.out: list[Decision] = []
        self._numbers = itertools.count(1)
        self._ticks = itertools.count()
        self._alarms: list[tuple[float, int, str, Any, Any]] = []
        self._dirty: dict[str, None] = {}
        self._hungry: dict[str, None] = {}
        #: Idle executors of all lanes, the longest idle first.
        self._idle: dict[int, None] = {}
        self._roomy: dict[str, None] = {}
        #: Hungry lanes for which nothing could be started when last tried.
        self._starved: dict[str, None] = {}
        #: Executors that fell idle since the last decision.
        self._freed: list[int] = []

    # -- small tools --------------------------------------------------------------------------------------------

    def alarm(self, at: float, kind: str, subject: Any, token: Any = None) -> None:
        """Have ``on_<kind>`` called at a time."""
        heapq.heappush(self._alarms, (at, next(self._ticks), kind, subject, token))

    def short(self, task: str) -> bool:
        """Return whether runs of ``task`` are known to be short."""
        seen = self.runtimes.get(task)
        return seen is not None and seen[0] >= self.policy.batch_samples and seen[1] < self.policy.batch_seconds

    def limit(self, name: str) -> Limit:
        """Return the limit of that name, unlimited if none was set."""
        found = self.limits.get(name)
        if found is None:
            found = self.limits[name] = Limit(name)
        return found

    def stream(self, lane: str, queue: str, task: str) -> Stream:
        """Return the stream, made when it is new."""
        key = (lane, queue, task)
        found = self.streams.get(key)
        if found is None:
            limits = (self.limit("app"), self.limit(f"queue:{queue}"), self.limit(f"task:{task}"))
            found = self.streams[key] = Stream(lane, queue, task, limits)
            self.lanes[lane].rotation.stream_added(found)
        return found

    def enqueue(self, message: Message) -> None:
        """Put a message where it waits for an executor."""
        lane = self.lanes[message.lane]
        if message.verdict is not None:
            message.place = "verdict"
            lane.verdicts.append(message)
            self.verdict_lanes[lane.lane.app][message.lane] = None
        else:
            stream = self.stream(message.lane, message.queue, message.task)
            stream.push(message)
            lane.waiting += 1
            self.waiting_by_queue[message.queue] += 1
            if not stream.parked:
                lane.rotation.wake(stream)
        self._dirty[message.lane] = None

    def leave_stream(self, message: Message) -> None:
        """Note that a waiting message waits no more."""
        self.lanes[message.lane].waiting -= 1
        self.waiting_by_queue[message.queue] -= 1
        if not self.waiting_by_queue[message.queue]:
            del self.waiting_by_queue[message.queue]

    def withdraw(self, message: Message) -> None:
        """Take a message out of its stream without running it."""
        stream = self.streams[message.lane, message.queue, message.task]
        message.place = ""
        stream.size -= 1
        self.leave_stream(message)
        if not stream.size:
            self._offer(stream)

    # -- limits -------------------------------------------------------------------------------------------------

    def hold(self, message: Message) -> None:
        """Count a message against its limits."""
        message.held = True
        for limit in self.streams[message.lane, message.queue, message.task].limits:
            limit.used += 1

    def release(self, message: Message) -> None:
        """Count it no more."""
        if message.held:
            message.held = False
            for limit in self.streams[message.lane, message.queue, message.task].limits:
                limit.used -= 1
                if limit.parked:
                    self._roomy[limit.name] = None

    def _park(self, stream: Stream, limit: Limit) -> None:
        stream.parked = True
        limit.parked.append(stream)
        self._offer(stream)

    def _offer(self, stream: Stream) -> None:
        # This stream makes no use of the room that others may have given up for it.
        for limit in stream.limits:
            if limit.parked and limit.room > 0:
                self._roomy[limit.name] = None

    def unpark(self, stream: Stream) -> None:
        """Let a stream be served again."""
        stream.parked = False
        if stream.size:
            self.lanes[stream.lane].rotation.wake(stream)
            self._dirty[stream.lane] = None
        else:
            self._offer(stream)

    def _use_room(self) -> None:
        while self._roomy:
            limit = self.limits[next(iter(self._roomy))]
            del self._roomy[limit.name]
            # One stream for each place: more would only be parked again.
            for _ in range(min(limit.room, len(limit.parked))):
                stream = limit.parked.popleft()
                self.unpark(stream)

    def _next_stream(self, lane: LaneState) -> Stream | None:
        """Return the stream to be served next, parking those without room."""
        while (stream := lane.rotation.next()) is not None:
            full = next((limit for limit in stream.limits if limit.room <= 0), None)
            if full is not None:
                self._park(stream, full)
                continue
            rate = self.rates.get(stream.task)
            if rate is not None and rate.next > self.now:
                stream.parked = True
                self.alarm(rate.next, "rate", stream)
                self._offer(stream)
                continue
            return stream
        return None

    def _take(self, lane: LaneState, stream: Stream) -> Message:
        message = stream.pop()
        self.leave_stream(message)
        self.hold(message)
        rate = self.rates.get(stream.task)
        if rate is not None:
            rate.take(self.now)
        lane.rotation.turn()
        if stream.size == 0 or any(limit.parked for limit in stream.limits):
            self._offer(stream)
        return message

    # -- decisions ----------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Assign what can be assigned; start and stop executors for the rest."""
        while self._roomy or self._dirty:
            self._use_room()
            dirty, self._dirty = self._dirty, {}
            for key in dirty:
                lane = self.lanes[key]
                if lane.verdicts:
                    self._settle_verdicts(lane)
                self._assign(lane)
                # One that nothing could be started for is tried again when there is more room, not before.
                if key not in self._starved or not lane.waiting:
                    self._hungry[key] = None
        if self._starved and any(number in self._idle for number in self._freed):
            # Nobody had work for them: a lane that waits for room may have their CPUs.
            self._hungry.update(self._starved)
        self._freed.clear()
        if self._hungry:
            self._feed()

    def _assign(self, lane: LaneState) -> None:
        while lane.waiting:
            if lane.idle:
                executor = self.executors[next(reversed(lane.idle))]
            elif lane.top_up:
                executor = self.executors[next(iter(lane.top_up))]
            else:
                # Streams without room must be parked all the same, or nobody would wake them.
                self._next_stream(lane)
                return
            batch = self._batch(lane, executor)
            if not batch:
                return
            self.give(executor, batch)

    def _batch(self, lane: LaneState, executor: ExecutorState) -> list[Message]:
        stream = self._next_stream(lane)
        if stream is None:
            return []
        if executor.outstanding and not self._may_share(stream):
            # Only an idle executor may have it.
            lane.top_up.pop(executor.id, None)
            return []
        message = self._take(lane, stream)
        batch = [message]
        if lane.lane.one_shot or not self.short(message.task) or message.time_limit:
            return batch
        policy = self.policy
        most = min(policy.max_batch, -(-lane.waiting // max(1, len(lane.executors))))
        seconds = self.runtimes[message.task][1]
        skipped = 0
        while len(batch) < most and seconds < policy.batch_seconds and skipped < _TRIES:
            stream = self._next_stream(lane)
            if stream is None:
                break
            if not self._may_share(stream):
                # It waits for an executor of its own; the queues behind it may have short ones.
                skipped += 1
                lane.rotation.turn()
                continue
            seconds += self.runtimes[stream.task][1]
            batch.append(self._take(lane, stream))
        return batch

    def _may_share(self, stream: Stream) -> bool:
        head = stream.head()
        return head is not None and not head[2].time_limit and self.short(stream.task)

    def give(self, executor: ExecutorState, messages: list[Message]) -> None:
        """Hand messages to an executor."""
        lane, now = executor.lane, self.now
        self._not_idle(executor)
        lane.top_up.pop(executor.id, None)
        was_empty = not executor.outstanding
        for message in messages:
            message.place, message.executor, message.assigned = "executor", executor.id, now
            executor.outstanding[message.seq] = message
            if message.verdict is None:
                if not self.short(message.task) or message.time_limit:
                    executor.long += 1
                if message.time_limit:
                    self.alarm(now + message.time_limit, "time_limit", executor.id, message.seq)
        if executor.long or lane.lane.one_shot:
            self.helpers[lane.lane.app].pop(executor.id, None)
            lane.short_busy.pop(executor.id, None)
        else:
            lane.short_busy[executor.id] = None
        if was_empty:
            executor.progress += 1
            executor.begun = False
        self.watch_head(executor)
        self.log.append((now, "assign", executor.id, len(messages), messages[0].task))
        self.out.append(Assign(executor.id, messages))

    def watch_head(self, executor: ExecutorState) -> None:
        """Have what waits behind a long-running message called back in time."""
        if len(executor.outstanding) > 1 and not executor.recall_armed:
            executor.recall_armed = True
            self.alarm(self.now + self.policy.recall_after, "recall", executor.id, executor.progress)

    def _settle_verdicts(self, lane: LaneState) -> None:
        app = lane.lane.app
        while lane.verdicts:
            helpers = self.helpers[app]
            number = next(reversed(lane.idle), None) if lane.idle and not lane.lane.one_shot else None
            if number is None:
                number = next(iter(helpers), None)
            if number is None:
                self._start_clerk(app)
                return
            executor = self.executors[number]
            message = lane.verdicts.popleft()
            self.give(executor, [message])
            if number in helpers:
                # The next verdict goes to another one, if there is another.
                helpers[number] = helpers.pop(number)
        self.verdict_lanes[app].pop(lane.lane.key, None)

    def _start_clerk(self, app: str) -> None:
        key = f"clerk:{app}"
        clerk = self.lanes.get(key)
        if clerk is None:
            clerk = self.lanes[key] = LaneState(Lane(key=key, request={}, app=app))
        if not clerk.executors:
            self._start(clerk, None)

    # -- executors ----------------------------------------------------------------------------------------------

    def now_idle(self, executor: ExecutorState) -> None:
        """Note that an executor has nothing to do."""
        lane = executor.lane
        node = self.nodes.get(executor.node)
        overdrawn = executor.borrowed and node is not None and node.free.get("CPU", 0) < 0
        if executor.yielding or overdrawn:
            self.stop(executor)
            return
        executor.idle_since = self.now
        lane.idle[executor.id] = None
        self._idle[executor.id] = None
        if not lane.lane.one_shot:
            self.can_help(executor)
        self.alarm(self.now + self.policy.idle_seconds, "idle", executor.id, self.now)
        self._dirty[lane.lane.key] = None
        self._freed.append(executor.id)

    def can_help(self, executor: ExecutorState) -> None:
        """Note that an executor can take bookkeeping soon."""
        app = executor.lane.lane.app
        self.helpers[app][executor.id] = None
        self._dirty.update(self.verdict_lanes[app])

    def _not_idle(self, executor: ExecutorState) -> None:
        executor.lane.idle.pop(executor.id, None)
        self._idle.pop(executor.id, None)

    def stop(self, executor: ExecutorState) -> None:
        """Ask an executor that has nothing to do to end."""
        if not executor.stopping:
            executor.stopping = True
            self._not_idle(executor)
            executor.lane.top_up.pop(executor.id, None)
            self.helpers[executor.lane.lane.app].pop(executor.id, None)
            self.log.append((self.now, "stop", executor.id))
            self.out.append(Stop(executor.id))

    def _start(self, lane: LaneState, node: Node | None) -> ExecutorState:
        borrowed = node is not None and lane.request.get("CPU", 0) > node.free_of_loans()
        executor = ExecutorState(next(self._numbers), lane, None, borrowed)
        self.executors[executor.id] = executor
        lane.executors.add(executor.id)
        lane.starting.add(executor.id)
        lane.busy_cpus += lane.request.get("CPU", 0)
        if node is not None:
            self.place(executor, node)
        self.drop_claim(lane)
        self.log.append((self.now, "start", executor.id, lane.lane.key, executor.node))
        self.out.append(Start(executor.id, lane.lane, executor.node, borrowed))
        return executor

    def place(self, executor: ExecutorState, node: Node) -> None:
        """Take the executor's resources from a node."""
        executor.node = node.id
        node.executors.add(executor.id)
        self.nodes.add(node, executor.lane.request, -1)
        if executor.borrowed:
            node.borrowed += executor.lane.request.get("CPU", 0)

    def unplace(self, executor: ExecutorState) -> None:
        """Give them back."""
        node = self.nodes.get(executor.node)
        if node is not None and executor.id in node.executors:
            node.executors.discard(executor.id)
            cpus = executor.lane.request.get("CPU", 0)
            self.nodes.add(node, executor.lane.request)
            if executor.borrowed:
                node.borrowed -= cpus
            self.capacity_changed()
        executor.node = None

    def capacity_changed(self) -> None:
        """Have another look at the lanes that could not start anything."""
        self._hungry.update(self._starved)

    # -- who starts next ----------------------------------------------------------------------------------------

    def wanted(self, lane: LaneState) -> int:
        """Return how many more executors the lane's waiting messages could use now."""
        if not lane.waiting:
            return 0
        self._next_stream(lane)
        many, seconds = 0, 0.0
        for stream in lane.rotation.active():
            count = min(stream.size, max(0, stream.room()))
            if lane.lane.one_shot or not self.short(stream.task):
                many += count
            else:
                seconds += count * self.runtimes[stream.task][1]
        # Short messages wait for executors that come free soon, if there are any.
        several = int(seconds / _START_SECONDS)
        many += several if lane.short_busy or lane.starting else max(several, 1 if seconds else 0)
        return max(0, many - len(lane.starting))

    def _feed(self) -> None:
        """Start executors for the lanes that want more, the one with the smallest share first."""
        hungry: list[tuple[int, int, str]] = []
        for key in self._hungry:
            lane = self.lanes[key]
            if lane.waiting:
                if lane.hungry_since is None:
                    lane.hungry_since = next(self._ticks)
                hungry.append((lane.busy_cpus, lane.hungry_since, key))
            else:
                self._fed(lane)
        self._hungry.clear()
        heapq.heapify(hungry)
        wants: dict[str, int] = {}
        failed = 0
        while hungry and failed < _TRIES:
            _, since, key = heapq.heappop(hungry)
            lane = self.lanes[key]
            want = wants[key] if key in wants else self.wanted(lane)
            if want <= 0:
                self._fed(lane)
            elif len(self.executors) < self.policy.max_executors and self._start_one(lane):
                wants[key] = want - 1
                heapq.heappush(hungry, (lane.busy_cpus, since, key))
            else:
                failed += 1
                self._starved[key] = None
                if not lane.starting:
                    self._make_room(lane)
        self._starved.update((key, None) for _, _, key in hungry)

    def _fed(self, lane: LaneState) -> None:
        lane.hungry_since = None
        self._starved.pop(lane.lane.key, None)
        self.drop_claim(lane)

    def _start_one(self, lane: LaneState) -> bool:
        if not lane.request.get("CPU") and len(lane.executors) >= max(1, self.nodes.total_cpus // UNIT):
            return False
        if lane.failures >= 2 and lane.starting:
            return False
        node = self.nodes.best_fit(lane.request, lane.lane.key)
        if node is None:
            return False
        lane.infeasible_since = None
        self._start(lane, node)
        return True

    def _make_room(self, lane: LaneState) -> None:
        """Have executors of others end, on one node that is kept clear, for a lane that cannot start any."""
        if not len(self.nodes):
            return
        if not self.nodes.could_fit(lane.request):
            self._infeasible(lane)
            return
        if not lane.request or self.nodes.get(lane.claim) is not None:
            return
        best: tuple[int, Node, list[ExecutorState], list[ExecutorState]] | None = None
        for node in self._promising(lane):
            found = self._clearing(lane, node)
            if found is not None and (best is None or len(found[1]) < best[0]):
                best = (len(found[1]), node, *found)
                if not found[1]:
                    break
        if best is None:
            return
        _, node, idle, busy = best
        node.claim, lane.claim = lane.lane.key, node.id
        for executor in idle:
            self.stop(executor)
        for executor in busy:
            executor.yielding = True

    def _promising(self, lane: LaneState) -> Iterator[Node]:
        """Yield nodes that may be cleared: those with idle executors, and now and then those with busy ones."""
        for number in itertools.islice(self._idle, _TRIES):
            node = self.nodes.get(self.executors[number].node)
            if node is not None and node.claim is None and node.could_fit(lane.request):
                yield node
        if self.now >= lane.retry_at:
            lane.retry_at = self.now + self.policy.slice_seconds / 4
            self.alarm(lane.retry_at, "hungry", lane.lane.key)
            yield from self.nodes.candidates(lane.request, lane.lane.key)

    def _clearing(self, lane: LaneState, node: Node) -> tuple[list[ExecutorState], list[ExecutorState]] | None:
        """Return the idle and the busy executors whose end would make room on ``node``, or None."""
        missing = {name: amount - node.free.get(name, 0) for name, amount in lane.request.items()}
        idle, busy = [], []
        fair = lane.busy_cpus + lane.request.get("CPU", 0)

        def gain(executor: ExecutorState) -> bool:
            helps = False
            for name, lacking in missing.items():
                amount = executor.lane.request.get(name, 0)
                if lacking > 0 and amount and not (executor.blocked and name == "CPU"):
                    helps = True
                    missing[name] = lacking - amount
            return helps

        members = [self.executors[number] for number in node.executors]
        for executor in sorted(members, key=lambda e: (not (e.id in self._idle or e.stopping), e.idle_since)):
            if all(lacking <= 0 for lacking in missing.values()):
                break
            if executor.lane is lane:
                continue
            if executor.stopping or executor.yielding:
                gain(executor)
            elif executor.id in self._idle:
                if gain(executor):
                    idle.append(executor)
            elif executor.ready and executor.lane.busy_cpus >= fair and gain(executor):
                busy.append(executor)
        return (idle, busy) if all(lacking <= 0 for lacking in missing.values()) else None

    def drop_claim(self, lane: LaneState) -> None:
        """Keep no node clear for the lane any more."""
        node = self.nodes.get(lane.claim)
        if node is not None and node.claim == lane.lane.key:
            node.claim = None
        lane.claim = None

    def _infeasible(self, lane: LaneState) -> None:
        if lane.infeasible_since is None:
            lane.infeasible_since = self.now
            self.alarm(self.now + self.policy.infeasible_seconds, "infeasible", lane.lane.key)
            if self.policy.demand_ahead and not lane.starting:
                # Ray keeps the request pending, which is what makes an autoscaler add a node for it.
                self._start(lane, None)
        elif self.now - lane.infeasible_since >= self.policy.infeasible_seconds:
            self.on_infeasible(lane.lane.key, None)

    def on_infeasible(self, key: str, token: Any) -> None:
        """Give up on the messages of a lane that no node can hold; an alarm."""
        raise NotImplementedError
