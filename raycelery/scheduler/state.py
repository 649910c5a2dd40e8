"""What the scheduler knows: messages that wait, limits, lanes, executors."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict, deque
from typing import Any

from raycelery.scheduler.lanes import ExecutorState, LaneState
from raycelery.scheduler.limits import Gate, Limit, Parkable, Rate
from raycelery.scheduler.model import Decision, Lane, Message, Policy
from raycelery.scheduler.nodes import Nodes
from raycelery.scheduler.queues import Stream
from raycelery.scheduler.timers import Timers


class State:
    """The scheduler's state, and the steps that keep its parts in agreement.

    Arguments:
        policy: what may be tuned.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.nodes = Nodes()
        #: All lanes that were ever named; those of them that have messages or executors.
        self.known_lanes: dict[str, Lane] = {}
        self.lanes: dict[str, LaneState] = {}
        self.executors: dict[int, ExecutorState] = {}
        #: Executors that count against ``max_executors``.
        self.slots = 0
        self.streams: dict[tuple[str, str, str], Stream] = {}
        self.limits: dict[str, Limit] = {}
        self.rates: dict[str, Rate] = {}
        #: Runs seen and their mean seconds, by task.
        self.runtimes: dict[str, tuple[int, float]] = {}
        self.waiting_by_queue: Counter[str] = Counter()
        #: Executors that can take bookkeeping at once, by application: idle ones, and those with short work only; and
        #: those of the latter that have too much of it.
        self.helpers: defaultdict[str, dict[int, None]] = defaultdict(dict)
        self.crowded: defaultdict[str, dict[int, None]] = defaultdict(dict)
        #: Lanes with bookkeeping to be done, by application.
        self.settling_lanes: defaultdict[str, dict[str, None]] = defaultdict(dict)
        #: Messages that were given up; the caller takes and clears them.
        self.dropped: list[Message] = []
        #: Messages of bridges that met with a settle_reason; the caller takes and clears them.
        self.returned: list[Message] = []
        self.log: deque[tuple[Any, ...]] = deque(maxlen=2000)
        self.out: list[Decision] = []
        self.timers = Timers(self._pending)
        #: Idle executors of all lanes, the longest idle first.
        self.idle: dict[int, None] = {}
        #: What :meth:`decide` has to look at: lanes where something changed; lanes that may want executors; limits
        #: that have room for what is parked there.
        self.dirty: dict[str, None] = {}
        self.hungry: dict[str, None] = {}
        self.roomy: dict[Gate, None] = {}
        self._app_limit = self.limit("app")
        self._numbers = itertools.count(1)

    def _pending(self, kind: str, subject: Any, token: Any) -> bool:
        """Return whether an timer still has a purpose."""
        if kind == "eta":
            return bool(subject.place == "eta")
        if kind == "time_limit":
            state = self.executors.get(subject)
            return state is not None and token in state.outstanding
        if kind in ("idle", "watch"):
            return subject in self.executors
        if kind == "rate":
            rate = self.rates.get(subject)
            return rate is not None and rate.timer == token
        return True

    # -- lanes and limits ---------------------------------------------------------------------------------------

    def lane(self, key: str) -> LaneState:
        """Return a lane, which must have been named."""
        found = self.lanes.get(key)
        if found is None:
            found = self.lanes[key] = LaneState(self.known_lanes[key])
        return found

    def forget_lane(self, lane: LaneState) -> None:
        """Forget a lane without messages and executors, so that lanes that come and go cost nothing."""
        del self.lanes[lane.key]
        for queue in lane.rotation.queues.values():
            for task in queue.streams:
                del self.streams[lane.key, queue.name, task]

    def limit(self, name: str) -> Limit:
        """Return the limit of that name, unlimited if none was set."""
        found = self.limits.get(name)
        if found is None:
            found = self.limits[name] = Limit(name)
        return found

    def short(self, task: str) -> bool:
        """Return whether runs of ``task`` are known to be short."""
        seen = self.runtimes.get(task)
        return seen is not None and seen[0] >= self.policy.batch_samples and seen[1] < self.policy.batch_seconds

    # -- waiting messages ---------------------------------------------------------------------------------------

    def enqueue(self, message: Message) -> None:
        """Put a message where it waits for an executor."""
        message.settling = False
        if message.bridged and message.settle_reason is not None:
            message.place = ""
            self.returned.append(message)
            return
        lane = self.lane(message.lane)
        message.lane = lane.key
        if message.settle_reason is not None:
            message.place = "settle_reason"
            lane.to_settle.append(message)
            self.settling_lanes[lane.lane.app][lane.key] = None
        else:
            stream = self.streams.get((lane.key, message.queue, message.task))
            if stream is None:
                stream = self._new_stream(lane, message.queue, message.task)
            # Messages come with strings of their own: one of each is enough.
            message.queue, message.task = stream.queue, stream.task
            stream.push(message)
            lane.waiting += 1
            self.waiting_by_queue[message.queue] += 1
        self.dirty[lane.key] = None

    def _new_stream(self, lane: LaneState, queue: str, task: str) -> Stream:
        limits = (self._app_limit, self.limit(f"queue:{queue}"), self.limit(f"task:{task}"))
        stream = self.streams[lane.key, queue, task] = lane.rotation.stream(limits, queue, task)
        return stream

    def left_stream(self, message: Message) -> None:
        """Note that a waiting message waits no more."""
        self.lanes[message.lane].waiting -= 1
        self.waiting_by_queue[message.queue] -= 1
        if not self.waiting_by_queue[message.queue]:
            del self.waiting_by_queue[message.queue]

    def withdraw(self, message: Message) -> None:
        """Take a message out of its stream without running it."""
        message.place = ""
        self.streams[message.lane, message.queue, message.task].withdrawn()
        self.left_stream(message)
        self.dirty[message.lane] = None

    def drain(self, stream: Stream) -> list[Message]:
        """Take all messages out of a stream."""
        messages = stream.drain()
        for message in messages:
            self.left_stream(message)
        self.dirty[stream.lane] = None
        return messages

    # -- what limits and rates let run --------------------------------------------------------------------------

    def hold(self, message: Message) -> None:
        """Count a message against its limits."""
        message.held = 1
        for limit in self.streams[message.lane, message.queue, message.task].limits:
            limit.used += 1

    def release(self, message: Message) -> None:
        """Count it no more."""
        if message.held:
            limits = self.streams[message.lane, message.queue, message.task].limits
            self._give_back(limits if message.held == 1 else limits[2:])
            message.held = 0

    def lend(self, message: Message) -> None:
        """Give its places in application and queue back while it waits for its subtasks, which may need them.

        It keeps its task's: or a recursion would know no bounds.
        """
        if message.held == 1:
            message.held = 2
            self._give_back(self.streams[message.lane, message.queue, message.task].limits[:2])

    def take_back(self, message: Message) -> None:
        """Count it again where it was not, though a limit may be exceeded by that: it runs."""
        if message.held == 2:
            message.held = 1
            for limit in self.streams[message.lane, message.queue, message.task].limits[:2]:
                limit.used += 1

    def _give_back(self, limits: tuple[Limit, ...]) -> None:
        for limit in limits:
            limit.used -= 1
            if limit.parked:
                self.roomy[limit] = None

    def next_stream(self, lane: LaneState) -> Stream | None:
        """Return the stream to be served next, parking what has no room."""
        rotation = lane.rotation
        if rotation.parked is not None:
            return None
        while (stream := rotation.front()) is not None:
            app, queue, task = stream.limits
            if app.maximum is not None and app.used >= app.maximum:
                app.park(rotation)
                return None
            if queue.maximum is not None and queue.used >= queue.maximum:
                rotation.drop()
                queue.park(stream.home)
            elif task.maximum is not None and task.used >= task.maximum:
                task.park(stream)
            elif self.rates and (rate := self.rates.get(stream.task)) is not None and rate.next > self.now:
                rate.park(stream)
                self.watch_rate(rate)
            else:
                return stream
        return None

    def take(self, lane: LaneState, stream: Stream) -> Message:
        """Take the first message of the stream that :meth:`next_stream` returned."""
        message = stream.home.take(stream)
        self.left_stream(message)
        self.hold(message)
        if self.rates and (rate := self.rates.get(stream.task)) is not None:
            rate.last = self.now
        lane.rotation.turn()
        return message

    def watch_rate(self, rate: Rate) -> None:
        """Have a rate looked at when it has a token."""
        if rate.timer is None:
            rate.timer = rate.next
            self.timers.add(rate.timer, "rate", rate.name, rate.timer)

    def on_rate(self, task: str, token: float) -> None:
        """Let what is parked at a rate be served: it has a token again; an timer."""
        rate = self.rates[task]
        rate.timer = None
        self.roomy[rate] = None

    def unpark_all(self, gate: Gate) -> None:
        """Let all that is parked be served again, in order."""
        for _ in range(len(gate.parked)):
            self._unpark(gate.first())

    def _unpark(self, parkable: Parkable) -> None:
        parkable.unpark()
        self.dirty[parkable.lane] = None

    def use_room(self) -> None:
        """Let as much be served again as limits and rates have room for.

        It is called until they are full or have nothing parked: what was woken may not be able to use the room, for
        want of an executor, and then others must have it.
        """
        for gate in list(self.roomy):
            for _ in range(min(gate.room_at(self.now), len(gate.parked))):
                self._unpark(gate.first())
            if not gate.parked or gate.room_at(self.now) <= 0:
                del self.roomy[gate]
                if gate.parked and isinstance(gate, Rate):
                    self.watch_rate(gate)
