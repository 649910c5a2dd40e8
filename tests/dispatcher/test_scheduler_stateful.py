"""Random histories of the scheduler: nothing is lost or handed out twice, limits hold, all that can run does."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raycelery.scheduler.events import (
    AddLane,
    Blocked,
    ExecutorFailed,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    Finished,
    NodeChanged,
    NodeRemoved,
    Recalled,
    Requeued,
    Retire,
    Revoke,
    SetLimit,
    SetRate,
    Submit,
    Unblocked,
)
from raycelery.scheduler.instructions import Assign, Drop, Kill, Recall, Start, Stop
from raycelery.scheduler.model import Counted, Lane, Message, Policy
from raycelery.scheduler.scheduler import Scheduler

LANES = [
    Lane("small", {"CPU": 1.0}, app="a"),
    Lane("large", {"CPU": 2.0}, app="a"),
    Lane("half", {"CPU": 0.5}, app="b"),
    Lane("memory", {"CPU": 1.0, "memory": 3e9}, app="a"),
    Lane("once", {"CPU": 1.0}, app="a", one_shot=True),
]
TASKS = ["quick", "slow", "limited", "rated"]
QUEUES = ["q0", "q1", "bounded"]
LIMITS = {"task:limited": 2, "queue:bounded": 3, "app": 9}
RATE = 2.0


class Histories(RuleBasedStateMachine):
    """Plays executors and nodes, and keeps its own books."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.scheduler = Scheduler(
            Policy(max_deliveries=2, slice_seconds=1.0, infeasible_seconds=5.0, batch_samples=3), debug=True
        )
        self.names = itertools.count()
        self.submitted: dict[int, Message] = {}
        self.ended: set[int] = set()
        self.given: dict[int, list[Message]] = {}
        self.starting: dict[int, Start] = {}
        self.lanes: dict[int, Lane] = {}
        self.places: dict[int, str] = {}
        self.without_cpus: set[int] = set()
        self.blocked: set[int] = set()
        self.to_stop: set[int] = set()
        self.to_recall: set[int] = set()
        self.to_kill: set[int] = set()
        self.nodes: dict[str, float] = {}
        self.rated: list[float] = []

    @initialize()
    def begin(self) -> None:
        for lane in LANES:
            self.scheduler.handle(AddLane(lane), self.now)
        for name, maximum in LIMITS.items():
            self.scheduler.handle(SetLimit(name, maximum), self.now)
        self.scheduler.handle(SetRate("rated", RATE), self.now)
        self.add_node("n0", 4.0)

    def add_node(self, name: str, cpus: float) -> None:
        self.nodes[name] = cpus
        self.scheduler.handle(NodeChanged(name, {"CPU": cpus, "memory": 8e9}), self.now)

    # -- what happens ---------------------------------------------------------------------------------------------

    @rule(
        lane=st.sampled_from(LANES), task=st.sampled_from(TASKS), queue=st.sampled_from(QUEUES),
        priority=st.integers(0, 2), delay=st.sampled_from([0.0, 0.0, 0.0, 3.0]), count=st.integers(1, 6),
        time_limit=st.sampled_from([None, None, 5.0]),
    )  # fmt: skip
    def submit(
        self, lane: Lane, task: str, queue: str, priority: int, delay: float, count: int, time_limit: float | None
    ) -> None:
        for _ in range(count):
            message = Message(f"m{next(self.names)}", task, queue, lane.key, priority=priority, time_limit=time_limit)
            message.eta = self.now + delay if delay else None
            self.scheduler.handle(Submit(message), self.now)
            self.submitted[id(message)] = message
        self.settle()

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def executor_starts(self, data: st.DataObject, fails: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.starting)))
        self.start(number, fails)
        self.settle()

    def start(self, number: int, fails: bool = False) -> None:
        start = self.starting.pop(number)
        node = start.node or next(iter(self.nodes), None)
        if fails or node is None:
            self.scheduler.handle(ExecutorFailed(number, "as played"), self.now)
            return
        self.given[number] = []
        self.lanes[number], self.places[number] = start.lane, node
        if start.without_cpus:
            self.without_cpus.add(number)
        self.scheduler.handle(ExecutorReady(number, node), self.now)

    @precondition(lambda self: any(self.given.values()))
    @rule(data=st.data(), runtime=st.sampled_from([0.0001, 2.0]))
    def message_ends(self, data: st.DataObject, runtime: float) -> None:
        number = data.draw(st.sampled_from(sorted(n for n, given in self.given.items() if given)))
        self.end(number, runtime)
        self.settle()

    def end(self, number: int, runtime: float = 0.01) -> None:
        message = self.given[number].pop(0)
        if number in self.blocked:
            self.blocked.discard(number)
            self.scheduler.handle(Unblocked(number), self.now)
        self.scheduler.handle(Finished(number, message.seq, runtime), self.now)
        assert id(message) not in self.ended
        self.ended.add(id(message))
        # A report that comes twice changes nothing.
        self.scheduler.handle(Finished(number, message.seq, runtime), self.now)
        if self.lanes[number].one_shot:
            self.leave(number)

    @precondition(lambda self: any(self.given.values()))
    @rule(data=st.data())
    def message_is_given_back(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(n for n, given in self.given.items() if given)))
        message = self.given[number][0]
        if number in self.blocked or self.lanes[number].one_shot:
            return
        self.given[number].pop(0)
        self.scheduler.handle(Requeued(number, message.seq), self.now)
        self.settle()

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def executors_are_retired(self, data: st.DataObject) -> None:
        self.scheduler.handle(Retire(data.draw(st.lists(st.sampled_from(sorted(self.given)), max_size=3))), self.now)
        self.settle()

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def executor_dies(self, data: st.DataObject) -> None:
        self.die(data.draw(st.sampled_from(sorted(self.given))))
        self.settle()

    def die(self, number: int) -> None:
        self.forget(number)
        self.scheduler.handle(ExecutorLost(number, "as played"), self.now)

    def leave(self, number: int) -> None:
        self.forget(number)
        self.scheduler.handle(ExecutorStopped(number), self.now)

    def forget(self, number: int) -> None:
        for book in (self.starting, self.given, self.lanes, self.places):
            book.pop(number, None)
        for numbers in (self.without_cpus, self.blocked, self.to_stop, self.to_recall, self.to_kill):
            numbers.discard(number)

    @precondition(lambda self: any(self.given.values()))
    @rule(data=st.data())
    def message_waits_for_subtasks(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(n for n, given in self.given.items() if given)))
        if number in self.blocked or self.given[number][0].settle_reason is not None:
            return
        self.blocked.add(number)
        self.scheduler.handle(Blocked(number), self.now)
        self.settle()

    @precondition(lambda self: self.submitted)
    @rule(data=st.data(), terminate=st.booleans())
    def revoke(self, data: st.DataObject, terminate: bool) -> None:
        message = data.draw(st.sampled_from(sorted(self.submitted.values(), key=lambda m: m.id)))
        self.scheduler.handle(Revoke([message.id], terminate=terminate), self.now)
        self.settle()

    @rule()
    def node_comes(self) -> None:
        if len(self.nodes) < 3:
            self.add_node(f"n{next(self.names)}", 4.0)
            self.settle()

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(data=st.data())
    def node_goes(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.nodes)))
        del self.nodes[node]
        self.scheduler.handle(NodeRemoved(node), self.now)
        for number in [n for n, place in self.places.items() if place == node]:
            self.die(number)
        self.settle()

    @rule(data=st.data())
    def executors_obey(self, data: st.DataObject) -> None:
        self.obey()
        self.settle()

    def obey(self) -> None:
        for number in sorted(self.to_kill):
            self.die(number)
        for number in sorted(self.to_recall):
            back = self.given[number][1:]
            del self.given[number][1:]
            self.to_recall.discard(number)
            self.scheduler.handle(Recalled(number, [message.seq for message in back]), self.now)
        for number in sorted(self.to_stop):
            if not self.given[number]:
                self.leave(number)

    # -- decisions ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take the scheduler's decisions, and check each against the books."""
        for decision in self.scheduler.decide(self.now):
            if isinstance(decision, Start):
                self.starting[decision.executor_id] = decision
            elif isinstance(decision, Assign):
                given = self.given[decision.executor_id]
                assert decision.executor_id not in self.to_stop, "handed to one that was told to stop"
                for message in decision.messages:
                    assert id(message) not in self.ended, "run again after its end"
                    assert all(message not in others for others in self.given.values()), "handed out twice"
                    assert message.eta is None or message.eta <= self.now or message.settle_reason, "before its time"
                    if message.settle_reason is None:
                        assert message.lane == self.lanes[decision.executor_id].key, "on another lane's executor"
                        if message.task == "rated":
                            self.rated.append(self.now)
                    given.append(message)
                if len(given) > 1:
                    assert not any(m.time_limit for m in given if m.settle_reason is None), "a time limit in a batch"
            elif isinstance(decision, Stop):
                self.to_stop.add(decision.executor_id)
            elif isinstance(decision, Recall):
                self.to_recall.add(decision.executor_id)
            elif isinstance(decision, Kill):
                self.to_kill.add(decision.executor_id)
            elif isinstance(decision, Drop):
                assert decision.message.reason
                self.ended.add(id(decision.message))

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.scheduler.view.pending == len(self.submitted) - len(self.ended)

    @invariant()
    def limits_hold(self) -> None:
        if self.blocked:
            return
        running = [m for given in self.given.values() for m in given if m.counted is not Counted.NOWHERE]
        for name, maximum in LIMITS.items():
            kind, _, which = name.partition(":")
            count = sum(1 for m in running if kind == "app" or which in (m.task if kind == "task" else m.queue,))
            assert count <= maximum, name
            assert self.scheduler.view.limits[name].used == count

    @invariant()
    def the_rate_holds(self) -> None:
        for earlier, later in itertools.pairwise(self.rated):
            assert later - earlier >= 1 / RATE - 1e-6

    @invariant()
    def nodes_are_not_overbooked(self) -> None:
        used = dict.fromkeys(self.nodes, 0.0)
        starting = [(n, s.node, s.lane, s.without_cpus) for n, s in self.starting.items()]
        for number, node, lane, without_cpus in [
            *starting,
            *((n, self.places[n], self.lanes[n], n in self.without_cpus) for n in self.given),
        ]:
            if node in used and not without_cpus:
                used[node] += lane.request.get("CPU", 0)
            assert number in self.scheduler.view.executors
        for node, cpus in used.items():
            assert cpus <= self.nodes[node] + 1e-9, "Ray would be asked for more than there is"

    @invariant()
    def it_wakes_when_something_waits_for_time(self) -> None:
        if self.scheduler.view.stats().scheduled:
            assert self.scheduler.wake_at is not None

    def teardown(self) -> None:
        """A fair ending: executors start, do as told and finish; then everything must have ended."""
        if not self.nodes:
            return
        for number in sorted(self.blocked):
            self.scheduler.handle(Unblocked(number), self.now)
        self.blocked.clear()
        for _ in range(3000):
            if not self.scheduler.view.pending:
                break
            self.obey()
            for number in sorted(self.starting):
                self.start(number)
            self.settle()
            for number in sorted(n for n, given in self.given.items() if given):
                if number in self.given and number not in self.to_kill:
                    self.end(number)
            self.now += 0.5
            self.settle()
        assert not self.scheduler.view.pending, [
            (m.id, m.phase, m.lane, self.scheduler.view.why(m, self.now))
            for m in self.submitted.values()
            if id(m) not in self.ended
        ]
        assert all(limit.used == 0 for limit in self.scheduler.view.limits.values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
