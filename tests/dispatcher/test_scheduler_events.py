"""Any events in any order: no message is lost or assigned twice, nothing is oversubscribed, and all ends at last."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raycelery.scheduler.events import (
    AddLane,
    AutoscalerFound,
    Blocked,
    ExecutorFailed,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    Finished,
    MakeRoom,
    NodeChanged,
    NodeDraining,
    NodeRemoved,
    RayDemand,
    Recalled,
    Requeued,
    Revoke,
    RevokeStamps,
    SetLimit,
    Unblocked,
)
from raycelery.scheduler.model import Lane, Message, NodeType
from tests.dispatcher.scheduler_cluster import Cluster, Worker

TASKS = ("quick", "slow", "rated", "other")
LIMITS = ("app", "queue:celery", "task:quick", "task:slow")
QUEUES = ("celery", "forecasts", "reports")
NODES: tuple[dict[str, float], ...] = (
    {"CPU": 1},
    {"CPU": 2, "memory": 8.0},
    {"CPU": 4, "GPU": 1},
    {"CPU": 0.5},
    {"CPU": 16, "GPU": 2, "memory": 64.0},
)
POLICY: dict[str, Any] = {"batch_samples": 2, "max_batch": 4, "max_executors": 12, "infeasible_seconds": 3.0}
SOME = st.integers(min_value=0, max_value=1000)


class Dispatching(RuleBasedStateMachine):
    """The scheduler, with a cluster that answers when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(starts=False, settles=False, recalls=False, stops=False, **POLICY)
        self.cluster.eager = False
        cluster = self.cluster
        self.lanes: list[Lane] = [
            cluster.lane(1),
            cluster.lane(2),
            cluster.lane(4),
            cluster.lane(0.5, app="second"),
            cluster.lane(0),
            cluster.lane(1, GPU=1),
            cluster.lane(1, memory=8.0),
            cluster.lane(1, one_shot=True),
        ]
        self.for_settlement = Lane("settlement:", {})
        cluster.scheduler.handle(AddLane(self.for_settlement), cluster.now)
        self.past: list[tuple[int, int]] = []

    @initialize(first=st.sampled_from(NODES))
    def begin(self, first: dict[str, float]) -> None:
        self.cluster.node("n0", first)

    # -- messages -----------------------------------------------------------------------------------------------

    @rule(
        lane=SOME,
        task=st.sampled_from(TASKS),
        queue=st.sampled_from(QUEUES),
        priority=st.integers(0, 3),
        delay=st.sampled_from([None, None, None, 0.0, 0.5, 5.0]),
        time_limit=st.sampled_from([None, None, None, 1.0, 3.0]),
        count=st.sampled_from([1, 1, 2, 5, 12]),
        stamp=st.sampled_from([None, None, "a", ["b", "c"]]),
    )
    def submit(
        self,
        lane: int,
        task: str,
        queue: str,
        priority: int,
        delay: float | None,
        time_limit: float | None,
        count: int,
        stamp: Any,
    ) -> None:
        stamps = None if stamp is None else {"stamp": stamp}
        for _ in range(count):
            self.cluster.submit(
                task,
                queue,
                lane=self.lanes[lane % len(self.lanes)],
                priority=priority,
                delay=delay,
                time_limit=time_limit,
                stamps=stamps,
            )

    @rule()
    def submit_chord(self) -> None:
        self.cluster.submit("celery.chord", "", lane=self.for_settlement, settle_reason="chord")

    @precondition(lambda self: self.cluster.live)
    @rule(which=SOME)
    def submit_again(self, which: int) -> None:
        same = self._message(which)
        if same.settle_reason != "chord":
            self.cluster.submit(message_id=same.id)

    @precondition(lambda self: self.cluster.live)
    @rule(which=SOME, terminate=st.booleans())
    def revoke(self, which: int, terminate: bool) -> None:
        self.cluster.scheduler.handle(
            Revoke([self._message(which).id, "unknown"], terminate=terminate), self.cluster.now
        )

    @rule(value=st.sampled_from(["b", ["c", "x"]]), terminate=st.booleans())
    def revoke_stamps(self, value: Any, terminate: bool) -> None:
        self.cluster.scheduler.handle(RevokeStamps({"stamp": value}, terminate=terminate), self.cluster.now)

    @rule(queue=st.sampled_from([None, *QUEUES]))
    def purge(self, queue: str | None) -> None:
        for message in self.cluster.purge(queue):
            assert message.settle_reason is None
            self.cluster.end(message, "purged")

    # -- executors ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self._starting())
    @rule(which=SOME)
    def ready(self, which: int) -> None:
        self.cluster.ready(_pick(self._starting(), which))

    @precondition(lambda self: self._starting())
    @rule(which=SOME)
    def does_not_start(self, which: int) -> None:
        self.cluster.lose(_pick(self._starting(), which))

    @precondition(lambda self: self._running())
    @rule(which=SOME, runtime=st.sampled_from([0.001, 0.001, 1.0]), count=st.sampled_from([1, 1, 3, 10]))
    def finish(self, which: int, runtime: float, count: int) -> None:
        for _ in range(count):
            running = self._running()
            if running:
                message = _pick(running, which)
                self.past.append((message.executor_id, message.seq))
                self.cluster.finish(message, 0.001 if message.task == "quick" else runtime)

    @precondition(lambda self: self._running())
    @rule(which=SOME)
    def requeue(self, which: int) -> None:
        message = _pick(self._running(), which)
        self.past.append((message.executor_id, message.seq))
        self.cluster.requeue(message)

    @precondition(lambda self: self._running())
    @rule(which=SOME)
    def block(self, which: int) -> None:
        self.cluster.block(_pick(self._running(), which), self._message(which), self._message(which + 1))

    @precondition(lambda self: self._running())
    @rule(which=SOME)
    def unblock(self, which: int) -> None:
        self.cluster.unblock(_pick(self._running(), which))

    @precondition(lambda self: self.cluster.workers)
    @rule(which=SOME)
    def lose(self, which: int) -> None:
        self.cluster.lose(_pick(list(self.cluster.workers.values()), which))

    @rule(begins=st.booleans())
    def executors_say_that_they_begin(self, begins: bool) -> None:
        self.cluster.begins = begins

    @precondition(lambda self: self.cluster.workers)
    @rule(which=SOME)
    def ends_by_itself(self, which: int) -> None:
        worker = _pick(list(self.cluster.workers.values()), which)
        if not worker.messages:
            self.cluster.stop(worker)

    @precondition(lambda self: self.cluster.workers)
    @rule(which=SOME)
    def answer(self, which: int) -> None:
        self._answer(_pick(list(self.cluster.workers.values()), which))

    @precondition(lambda self: self.past)
    @rule(which=SOME, kind=st.sampled_from(["finished", "requeued", "recalled", "lost", "ready"]))
    def report_again(self, which: int, kind: str) -> None:
        executor, seq = _pick(self.past, which)
        scheduler, now = self.cluster.scheduler, self.cluster.now
        if scheduler.view.given(executor, seq) is not None:
            return  # it was given back, and the same executor has it again
        if kind == "finished":
            scheduler.handle(Finished(executor, seq, 1.0), now)
        elif kind == "requeued":
            scheduler.handle(Requeued(executor, seq), now)
        elif kind == "recalled" and not self._recalling(executor):
            scheduler.handle(Recalled(executor, [seq]), now)
        elif kind == "lost" and executor not in self.cluster.workers:
            scheduler.handle(ExecutorLost(executor, "again"), now)
            scheduler.handle(ExecutorStopped(executor), now)
            scheduler.handle(ExecutorFailed(executor, "again"), now)
            scheduler.handle(Blocked(executor), now)
            scheduler.handle(Unblocked(executor), now)
        elif kind == "ready" and (worker := self.cluster.workers.get(executor)) is not None and worker.ready:
            scheduler.handle(ExecutorReady(executor, worker.node or ""), now)

    # -- the rest -----------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 3), resources=st.sampled_from(NODES))
    def node(self, number: int, resources: dict[str, float]) -> None:
        known = self.cluster.scheduler.view.nodes.get(f"n{number}")
        if known is not None:
            self.cluster.shrunk = {*self.cluster.shrunk, known.id}
        self.cluster.node(f"n{number}", resources)

    @rule(number=st.integers(0, 3))
    def node_dies(self, number: int) -> None:
        name = f"n{number}"
        self.cluster.scheduler.handle(NodeRemoved(name), self.cluster.now)
        for worker in list(self.cluster.workers.values()):
            if name in (worker.node, worker.asked if worker.without_cpus else None):
                self.cluster.lose(worker, "its node died")

    @rule(
        name=st.sampled_from(["app", "queue:celery", "task:quick", "task:slow"]),
        maximum=st.sampled_from([None, 0, 1, 3]),
    )
    def limit(self, name: str, maximum: int | None) -> None:
        self.cluster.scheduler.handle(SetLimit(name, maximum), self.cluster.now)

    @rule(task=st.sampled_from(["rated", "quick"]), per_second=st.sampled_from([None, 0.2, 2.0, 50.0]))
    def rate(self, task: str, per_second: float | None) -> None:
        self.cluster.set_rate(task, per_second)

    @rule(cpus=st.sampled_from([1.0, 4.0]), share=st.sampled_from([0.0, 2.0]))
    def neighbour(self, cpus: float, share: float) -> None:
        self.cluster.scheduler.handle(MakeRoom({"CPU": cpus}, share), self.cluster.now)

    @rule(cpus=st.sampled_from([1.0, 4.0]), share=st.sampled_from([0.0, 2.0]))
    def ray_work_waits(self, cpus: float, share: float) -> None:
        self.cluster.scheduler.handle(RayDemand({"CPU": cpus}, share), self.cluster.now)

    @rule(paused=st.booleans(), which=st.integers(0, 5))
    def cpus_are_lent(self, paused: bool, which: int) -> None:
        scheduler = self.cluster.scheduler
        if which < len(scheduler.view.executors):
            number = list(scheduler.view.executors)[which]
            if (
                paused
                and not scheduler.view.executors[number].resting
                and not scheduler.view.executors[number].backfilled
            ):
                self.cluster.pausing.pause(number)
            elif not paused:
                self.cluster.pausing.resume(number)

    @rule()
    def decide(self) -> None:
        self.cluster.turn()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 2.5, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.cluster.pass_time(seconds)

    @invariant()
    def counts_agree(self) -> None:
        self.cluster.scheduler.validate()
        self.cluster.check_messages()

    @rule(number=st.integers(0, 3), seconds=st.sampled_from([None, 2.0, 20.0]))
    def node_drains(self, number: int, seconds: float | None) -> None:
        deadline = None if seconds is None else self.cluster.now + seconds
        self.cluster.scheduler.handle(NodeDraining(f"n{number}", deadline), self.cluster.now)

    @rule(which=st.sets(st.integers(0, len(NODES) - 1)), maximum=st.sampled_from([None, 1, 3]))
    def autoscaler(self, which: set[int], maximum: int | None) -> None:
        types = [NodeType(f"t{number}", NODES[number], maximum) for number in sorted(which)]
        self.cluster.scheduler.handle(AutoscalerFound(types), self.cluster.now)

    # -- the end ------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """From now on all that is asked for is done: then everything ends."""
        cluster = self.cluster
        for name in LIMITS:
            cluster.scheduler.handle(
                SetLimit(name, 1 if name == "app" and cluster.scheduler.view.limits["app"].maximum else None),
                cluster.now,
            )
        cluster.set_rate("rated", 2.0)
        for number in list(cluster.scheduler.view.executors):
            cluster.pausing.resume(number)
        cluster.scheduler.handle(NodeChanged("n9", {"CPU": 1}), cluster.now)
        if cluster.scheduler._parts.autoscaler.known:
            # No node comes any more.
            cluster.scheduler.handle(AutoscalerFound([]), cluster.now)
        cluster.turn()
        for _ in range(3000):
            if not cluster.live:
                break
            for message in self._running():
                cluster.finish(message, 0.1)
            for worker in list(cluster.workers.values()):
                if not worker.ready:
                    cluster.ready(worker)
                elif cluster.workers.get(worker.id) is worker:
                    self._answer(worker)
            cluster.pass_time(0.1)
        assert not cluster.live, [(m.id, m.task, m.lane, m.phase, m.settle_reason) for m in cluster.live.values()][:10]
        assert cluster.scheduler.view.pending == 0
        for _ in range(4):
            cluster.pass_time(100.0)
            for worker in list(cluster.workers.values()):
                self._answer(worker)
        assert not any(worker.ready for worker in cluster.workers.values()), "idle executors end"

    # -- help ---------------------------------------------------------------------------------------------------

    def _answer(self, worker: Worker) -> None:
        if (worker.stopping and not worker.messages) or (worker.spent and not worker.messages):
            self.cluster.stop(worker)
        elif self._recalling(worker.id):
            self.cluster.give_back(worker)

    def _recalling(self, executor: int) -> bool:
        state = self.cluster.scheduler.view.executors.get(executor)
        return state is not None and state.recalling

    def _starting(self) -> list[Worker]:
        return [worker for worker in self.cluster.workers.values() if not worker.ready]

    def _running(self) -> list[Message]:
        return [worker.running for worker in self.cluster.workers.values() if worker.running is not None]

    def _message(self, which: int) -> Message:
        return _pick(list(self.cluster.live.values()), which)


def _pick(things: list[Any], which: int) -> Any:
    return things[which % len(things)]


TestDispatching = Dispatching.TestCase
TestDispatching.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
