"""A cluster that does what the scheduler decides, and checks that it may; for the scheduler's tests.

Time stands still until :meth:`Cluster.pass_time` is called. Executors start, stop, give back and do bookkeeping at
once, unless told otherwise; messages run until :meth:`Cluster.finish` is called.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from raycelery.scheduler.events import (
    AddLane,
    Begun,
    Blocked,
    ExecutorFailed,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    Finished,
    NodeChanged,
    Purge,
    Recalled,
    Requeued,
    SetRate,
    Submit,
    Unblocked,
)
from raycelery.scheduler.instructions import Assign, Drop, Instruction, Kill, Recall, Return, Start, Stop, ToPeers
from raycelery.scheduler.model import Lane, Message, Policy
from raycelery.scheduler.nodes import UNIT, Node
from raycelery.scheduler.pausing import Pausing
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.scheduler import Scheduler

START = 1_000_000.0


class Worker:
    """An executor as it really is."""

    def __init__(self, start: Start) -> None:
        self.id = start.executor_id
        self.lane = start.lane
        #: Where it was asked for, and where Ray has put it.
        self.asked = start.node
        self.node: str | None = None
        self.without_cpus = start.without_cpus
        self.not_on = start.not_on
        self.ready = False
        self.stopping = False
        self.blocked = False
        self.messages: list[Message] = []
        #: It has been given its only message.
        self.spent = False

    @property
    def running(self) -> Message | None:
        return self.messages[0] if self.messages else None


class Cluster:
    """Nodes and executors around a scheduler.

    Arguments:
        nodes: resources of each node, or just its CPUs.
        starts: executors are ready at once; else :meth:`ready` has to be called.
        settles: bookkeeping is done at once; else :meth:`finish` has to be called.
        recalls: messages are given back at once; else :meth:`give_back` has to be called.
        stops: executors end at once when asked to; else :meth:`stop` has to be called.
        policy: of the scheduler.
    """

    def __init__(
        self,
        *nodes: float | Mapping[str, float],
        starts: bool = True,
        settles: bool = True,
        recalls: bool = True,
        stops: bool = True,
        **policy: Any,
    ) -> None:
        self.scheduler = Scheduler(Policy(**policy), debug=True, name="mine")
        self.now = START
        self.starts, self.settles, self.recalls, self.stops = starts, settles, recalls, stops
        self.workers: dict[int, Worker] = {}
        self.decisions: list[Instruction] = []
        #: Messages that were submitted and have not ended, by their object; how those that have ended did so.
        self.live: dict[int, Message] = {}
        self.ended: dict[int, str] = {}
        #: What is to be said to other applications.
        self.to_peers: list[ToPeers] = []
        #: Ids in the order in which they began to run, and ids with their to_settle in the order of bookkeeping.
        self.begun: list[str] = []
        self.settled: list[tuple[str, str]] = []
        #: When a task with a rate was last assigned.
        self.rated: dict[str, float] = {}
        self._ids = itertools.count(1)
        self._kept: list[Message] = []
        for number, node in enumerate(nodes):
            self.node(f"n{number}", node)

    # -- what the outside does ----------------------------------------------------------------------------------

    def node(self, name: str, resources: float | Mapping[str, float]) -> None:
        """Add or change a node."""
        self.scheduler.handle(
            NodeChanged(name, resources if isinstance(resources, Mapping) else {"CPU": resources}), self.now
        )

    def lane(self, cpus: float = 1, app: str = "", env: str = "", one_shot: bool = False, **other: float) -> Lane:
        """Make a lane known."""
        request = {name: float(amount) for name, amount in {"CPU": cpus, **other}.items() if amount}
        lane = Lane(f"{sorted(request.items())}{app}{env}{one_shot}", request, app=app, env=env, one_shot=one_shot)
        self.scheduler.handle(AddLane(lane), self.now)
        return lane

    def submit(
        self,
        task: str = "task",
        queue: str = "celery",
        *,
        lane: Lane | None = None,
        message_id: str | None = None,
        delay: float | None = None,
        **fields: Any,
    ) -> Message:
        """Submit a message; ``turn`` decides about it."""
        lane = lane or self.lane()
        eta = None if delay is None else self.now + delay
        message = Message(message_id or f"m{next(self._ids)}", task, queue, lane.key, eta=eta, **fields)
        self.live[id(message)] = message
        self.scheduler.handle(Submit(message), self.now)
        return message

    def submit_many(self, count: int, *args: Any, **fields: Any) -> list[Message]:
        """Submit messages that are alike."""
        return [self.submit(*args, **fields) for _ in range(count)]

    @property
    def pausing(self) -> Pausing:
        """What pauses executors, at this time."""
        parts = self.scheduler._parts
        parts.turn.now = self.now
        return parts.pausing

    def purge(self, queue: str | None = None) -> list[Message]:
        """Drop what waits, and return it."""
        messages = self.scheduler.view.purgeable(queue)
        self.scheduler.handle(Purge(queue), self.now)
        return messages

    def set_rate(self, task: str, per_second: float | None) -> None:
        """Set the rate limit of a task."""
        if task not in self.scheduler.view.rates:
            self.rated.pop(task, None)
        self.scheduler.handle(SetRate(task, per_second), self.now)

    def pass_time(self, seconds: float = 0.0) -> None:
        """Let time pass, waking the scheduler when it wants to be."""
        until = self.now + seconds
        for _ in range(10_000):
            wake_at = self.scheduler.wake_at
            if wake_at is None or wake_at > until:
                break
            self.now = max(self.now, wake_at)
            self.turn()
        else:
            raise AssertionError("the scheduler wants to be woken all the time")
        self.now = until
        self.turn()

    def learn(self, task: str, runtime: float = 0.001, lane: Lane | None = None) -> None:
        """Have a task run often enough for its run time to be known."""
        for _ in range(self.scheduler.view.policy.batch_samples):
            message = self.submit(task, lane=lane)
            self.turn()
            self.finish(message, runtime)
        self.begun.clear()

    # -- what executors do --------------------------------------------------------------------------------------

    def worker_of(self, message: Message) -> Worker:
        """Return the executor that has the message."""
        return next(worker for worker in self.workers.values() if message in worker.messages)

    def placed(self, worker: Worker) -> bool:
        """Have Ray find a node for an executor, as it does: the one that was asked for, or any other with room."""
        if worker.node is None:
            nodes = sorted(self.scheduler.view.nodes, key=lambda node: node.id != worker.asked)
            if worker.without_cpus:
                nodes = [node for node in nodes if node.id == worker.asked]
            for node in nodes:
                if node.id in worker.not_on or node.draining:
                    continue
                if worker.without_cpus or self._has_room(node, worker.lane.request):
                    worker.node = node.id
                    break
        return worker.node is not None

    def _has_room(self, node: Node, request: Mapping[str, float]) -> bool:
        used = Counter(request)
        for worker in self.workers.values():
            if worker.node == node.id and not worker.without_cpus:
                used.update(worker.lane.request)
        return all(amount <= node.total.get(name, 0) / UNIT + 1e-9 for name, amount in used.items())

    def ready(self, worker: Worker) -> bool:
        """Have an executor be ready, unless Ray has no room for it."""
        if self.placed(worker):
            worker.ready = True
            self.scheduler.handle(ExecutorReady(worker.id, worker.node or ""), self.now)
            self._after()
        return worker.ready

    def finish(self, message: Message, runtime: float = 1.0, turn: bool = True) -> None:
        """Have an executor report a message done."""
        worker = self.worker_of(message)
        assert worker.running is message, "executors run messages in order"
        worker.messages.pop(0)
        worker.blocked = False
        settling = message.settling
        if settling:
            assert message.settle_reason is not None
            self.settled.append((message.id, message.settle_reason))
        assert self.scheduler.view.given(worker.id, message.seq) is message
        self.scheduler.handle(Finished(worker.id, message.seq, 0.0 if settling else runtime), self.now)
        self.end(message, message.settle_reason if settling and message.settle_reason else "done")
        self._began(worker)
        if turn:
            self._after()

    def requeue(self, message: Message) -> None:
        """Have an executor give a message back to be run again."""
        worker = self.worker_of(message)
        worker.messages.remove(message)
        worker.blocked = False
        self.scheduler.handle(Requeued(worker.id, message.seq), self.now)
        self._began(worker)
        self._after()

    def give_back(self, worker: Worker) -> None:
        """Have an executor answer to a recall."""
        rest = worker.messages[1:]
        del worker.messages[1:]
        self.scheduler.handle(Recalled(worker.id, [message.seq for message in rest]), self.now)
        self._after()

    def block(self, message: Message, *awaited: Message) -> None:
        """Have a message wait for its subtasks."""
        worker = self.worker_of(message)
        worker.blocked = True
        self.scheduler.handle(Blocked(worker.id, ids(awaited)), self.now)
        self._after()

    def unblock(self, message: Message) -> None:
        """Have it go on."""
        worker = self.worker_of(message)
        worker.blocked = False
        self.scheduler.handle(Unblocked(worker.id), self.now)
        self._after()

    def lose(self, worker: Worker, reason: str = "it died") -> None:
        """Have an executor die."""
        del self.workers[worker.id]
        kind = ExecutorLost if worker.ready else ExecutorFailed
        self.scheduler.handle(kind(worker.id, reason), self.now)
        self._after()

    def stop(self, worker: Worker) -> None:
        """Have an executor end in order."""
        del self.workers[worker.id]
        self.scheduler.handle(ExecutorStopped(worker.id), self.now)
        self._after()

    def _after(self) -> None:
        if self.eager:
            self.turn()

    #: Whether executors say that they have begun what they were given.
    begins = True
    #: Whether the scheduler is asked to decide after each event.
    eager = True

    # -- decisions ----------------------------------------------------------------------------------------------

    def turn(self) -> list[Instruction]:
        """Have the scheduler decide, and do it, until it has nothing more to decide."""
        decided: list[Instruction] = []
        for _ in range(10_000):
            decisions = self.scheduler.decide(self.now)
            self.check_messages()
            self.check_nodes()
            if not decisions and not self._late_starts():
                break
            decided += decisions
            for decision in decisions:
                self._do(decision)
            self.check()
        else:
            raise AssertionError("the scheduler decides without end")
        assert not self.scheduler.decide(self.now), "deciding again must change nothing"
        self.decisions += decided
        return decided

    def _late_starts(self) -> bool:
        late = [worker for worker in self.workers.values() if self.starts and not worker.ready and self.placed(worker)]
        for worker in late:
            worker.ready = True
            self.scheduler.handle(ExecutorReady(worker.id, worker.node or ""), self.now)
        return bool(late)

    def _do(self, decision: Instruction) -> None:
        if isinstance(decision, (Drop, Return)):
            self.end(decision.message, "dropped")
            return
        if isinstance(decision, ToPeers):
            self.to_peers.append(decision)
            return
        worker = self.workers.get(decision.executor_id)
        if isinstance(decision, Start):
            assert worker is None, "numbers are not used again"
            worker = self.workers[decision.executor_id] = Worker(decision)
            if self.placed(worker) and self.starts:
                worker.ready = True
                self.scheduler.handle(ExecutorReady(worker.id, worker.node or ""), self.now)
        elif worker is None:
            # It has ended meanwhile.
            assert not isinstance(decision, Assign)
        elif isinstance(decision, Assign):
            self._assign(worker, decision.messages)
        elif isinstance(decision, Stop):
            assert worker.ready
            assert not worker.messages, "only idle executors are asked to end"
            worker.stopping = True
            if self.stops:
                del self.workers[worker.id]
                self.scheduler.handle(ExecutorStopped(worker.id), self.now)
        elif isinstance(decision, Kill):
            del self.workers[worker.id]
            self.scheduler.handle(ExecutorLost(worker.id, decision.reason), self.now)
        elif isinstance(decision, Recall) and self.recalls:
            rest = worker.messages[1:]
            del worker.messages[1:]
            self.scheduler.handle(Recalled(worker.id, [message.seq for message in rest]), self.now)

    def _assign(self, worker: Worker, messages: list[Message]) -> None:
        assert worker.ready
        assert not worker.stopping
        assert messages
        if worker.lane.one_shot:
            assert not worker.spent
            assert len(messages) == 1
            worker.spent = True
        for message in messages:
            assert id(message) in self.live, "it has ended already"
            assert not any(message in other.messages for other in self.workers.values()), "assigned twice"
            if message.settle_reason is None:
                assert message.lane == worker.lane.key
                self._check_bounds(message)
            for behind in worker.messages:
                assert not behind.time_limit or behind.settling, "nothing is put behind what may be killed"
            worker.messages.append(message)
        if len(worker.messages) == len(messages):
            if self.begins:
                self.scheduler.handle(Begun(worker.id), self.now)
            self._began(worker)
        while self.settles and worker.running is not None and worker.running.settling:
            self.finish(worker.running, turn=False)

    def _check_bounds(self, message: Message) -> None:
        # What is exceeded by a parent that goes on, or because it was lowered, must not be exceeded further.
        for name in ("app", f"queue:{message.queue}", f"task:{message.task}"):
            limit = self.scheduler.view.limits[name]
            assert limit.maximum is None or limit.used <= limit.maximum, name
        rate = self.scheduler.view.rates.get(message.task)
        if rate is not None:
            before = self.rated.get(message.task)
            assert before is None or self.now - before >= 1 / rate.per_second - 1e-6, "sooner than its rate allows"
            self.rated[message.task] = self.now

    def _began(self, worker: Worker) -> None:
        if worker.running is not None and not worker.running.settling:
            self.begun.append(worker.running.id)

    def end(self, message: Message, how: str) -> None:
        """Note that a message has ended."""
        assert id(message) not in self.ended, "it ended twice"
        del self.live[id(message)]
        self.ended[id(message)] = how
        message.payload = None
        # Objects' ids are used again unless the object is kept.
        self._kept.append(message)

    # -- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what must hold at any time."""
        self.scheduler.validate()
        self.check_messages()
        self.check_nodes()

    def check_messages(self) -> None:
        live = [message for message in self.live.values() if message.phase is not MessagePhase.DONE]
        assert self.scheduler.view.pending == len(live)
        phases = Counter(message.phase for message in live)
        assert phases[MessagePhase.SCHEDULED] == self.scheduler.view.stats().scheduled
        assert not phases[MessagePhase.NEW] + phases[MessagePhase.TAKEN], "lost"
        for message in live:
            if message.at_executor and message.executor_id in self.workers:
                outstanding = self.scheduler.view.executors[message.executor_id].outstanding
                assert outstanding[message.seq] is message

    def check_nodes(self) -> None:
        for node in self.scheduler.view.nodes:
            used: Counter[str] = Counter()
            backfilled = 0.0
            for worker in self.workers.values():
                if worker.node == node.id:
                    used.update(worker.lane.request)
                    if worker.blocked:
                        used.subtract({"CPU": worker.lane.request.get("CPU", 0)})
                    if worker.without_cpus:
                        backfilled += worker.lane.request.get("CPU", 0)
            for name, amount in used.items():
                total: float = node.total.get(name, 0) / UNIT
                if name == "CPU":
                    total += backfilled
                assert amount <= total + 1e-9 or node.id in self.shrunk, (node.id, name, amount, total)

    #: Nodes that became smaller than what runs there.
    shrunk: frozenset[str] | set[str] = frozenset()

    # -- what tests ask -----------------------------------------------------------------------------------------

    def running(self) -> list[str]:
        """Return the ids of the messages that run, in order of submission."""
        found = [w.running for w in self.workers.values() if w.running is not None and not w.running.settling]
        return [message.id for message in sorted(found, key=lambda message: message.seq)]

    def is_running(self, message: Message) -> bool:
        """Return whether a message runs."""
        return any(worker.running is message and not message.settling for worker in self.workers.values())

    def how(self, message: Message) -> str:
        """Return how a message ended: "done", its settle_reason, or "dropped"; "" if it has not."""
        return self.ended.get(id(message), "")

    def of(self, lane: Lane) -> list[Worker]:
        """Return the lane's executors."""
        return [worker for worker in self.workers.values() if worker.lane is lane or worker.lane == lane]

    def run_all(self, seconds: float = 1.0, most: float = math.inf) -> None:
        """Run until nothing is left; every message takes as long."""
        began = self.now
        while self.live:
            assert self.now - began <= most, (
                f"not done: {[(m.id, m.phase, m.settle_reason) for m in self.live.values()]}"
            )
            running = [w.running for w in self.workers.values() if w.running is not None and not w.stopping]
            self.pass_time(seconds)
            for message in running:
                if any(message in worker.messages[:1] for worker in self.workers.values()):
                    self.finish(message, seconds)


def ids(messages: Iterable[Message]) -> list[str]:
    """Return the messages' ids."""
    return [message.id for message in messages]
