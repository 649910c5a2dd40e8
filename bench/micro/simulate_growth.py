"""Runs the scheduler on a simulated cluster that grows and shrinks: from no node to a thousand and back. Needs no Ray.

    python -m bench.micro.simulate_growth --nodes 1000 --hours 0.5

An autoscaler like Ray's looks at what is pending, adds nodes that take two minutes to come, takes those that have had
no executor for a minute. Nodes are spot ones: they are lost at random, half of them without notice, and what ran there
runs again. Requests are mixed: 1, 2, 4 and 16 CPUs, on nodes of 16. Prints what the nodes were paid for over what the
work needs, how long messages waited, and how many nodes came in vain. Times are in seconds of the simulated clock.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from raycelery.scheduler.events import (
    AddLane,
    AutoscalerFound,
    Begun,
    ExecutorFailed,
    ExecutorLost,
    ExecutorReady,
    ExecutorStopped,
    Finished,
    NodeChanged,
    NodeDraining,
    NodeRemoved,
    Recalled,
    Submit,
)
from raycelery.scheduler.instructions import Assign, Drop, Instruction, Kill, Recall, Start, Stop
from raycelery.scheduler.model import Lane, Message, NodeType, Policy
from raycelery.scheduler.scheduler import Scheduler

CPUS = 16.0
#: CPUs that messages ask for, and the part of the messages that does.
REQUESTS = {1.0: 0.5, 2.0: 0.3, 4.0: 0.15, CPUS: 0.05}
#: Mean seconds of a message; seconds that executors and nodes take to come, and may be idle.
RUN_SECONDS, START_SECONDS, NODE_SECONDS = 100.0, 2.0, 120.0
IDLE_SECONDS, NODE_IDLE_SECONDS = 30.0, 60.0
#: Seconds between looks of the autoscaler; mean life of a spot node, and how long before its end it is announced.
LOOK_SECONDS, LIFE_SECONDS, NOTICE_SECONDS = 5.0, 4 * 3600.0, 120.0


@dataclass
class Executor:
    """An executor as it is in the simulation."""

    id: int
    lane: Lane
    node: str | None = None
    not_on: tuple[str, ...] = ()
    ready: bool = False
    messages: deque[Message] = field(default_factory=deque)

    @property
    def cpus(self) -> float:
        return self.lane.request.get("CPU", 0.0)


@dataclass
class Node:
    """A node, and how long it has been paid for."""

    came: float
    free: float = CPUS
    executors: set[int] = field(default_factory=set)
    idle_since: float = 0.0
    used: bool = False


@dataclass
class Played:
    """What happened."""

    finished: int = 0
    again: int = 0
    most_nodes: int = 0
    nodes: int = 0
    in_vain: int = 0
    lost: int = 0
    node_seconds: float = 0.0
    #: CPU seconds that the messages needed, each once.
    work: float = 0.0
    done_at: float = 0.0
    gone_at: float = 0.0
    waits: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0


class Cluster:
    """A cluster with an autoscaler, around a scheduler.

    Arguments:
        most: nodes that there may be.
        spot: whether nodes are lost.
        seed: of what is drawn.
    """

    def __init__(self, most: int, *, spot: bool = True, seed: int = 7) -> None:
        policy = Policy(idle_seconds=IDLE_SECONDS, max_executors=100 * most, max_nodes_ahead=most)
        self.scheduler = Scheduler(policy)
        self.most, self.spot, self.random = most, spot, random.Random(seed)
        self.now = 0.0
        self.played = Played()
        self.nodes: dict[str, Node] = {}
        self._coming = 0
        self._executors: dict[int, Executor] = {}
        #: Those that Ray has not found room for.
        self._pending: dict[int, None] = {}
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ticks = itertools.count()
        self._lengths: dict[str, float] = {}
        self._lanes = {cpus: Lane(f"{cpus:g} CPU", {"CPU": cpus}) for cpus in REQUESTS}
        for lane in self._lanes.values():
            self.scheduler.handle(AddLane(lane), 0.0)
        self.scheduler.handle(AutoscalerFound([NodeType("spot", {"CPU": CPUS}, most)], most), 0.0)

    # -- from outside -------------------------------------------------------------------------------------------

    def submit(self, cpu_seconds: float) -> None:
        """Submit messages that need so much in all."""
        sizes, weights = list(REQUESTS), list(REQUESTS.values())
        while cpu_seconds > 0:
            cpus = self.random.choices(sizes, weights)[0]
            length = self.random.lognormvariate(math.log(RUN_SECONDS) - 0.125, 0.5)
            name = f"m{len(self._lengths)}"
            self._lengths[name] = length
            self.played.work += cpus * length
            cpu_seconds -= cpus * length
            self._submit(name, self._lanes[cpus].key)

    def _submit(self, name: str, lane: str) -> None:
        self.scheduler.handle(Submit(Message(name, lane, "celery", lane)), self.now)

    def at(self, when: float, do: Callable[..., None], *arguments: Any) -> None:
        """Have something done at a time."""
        heapq.heappush(self._events, (when, next(self._ticks), do, arguments))

    def run(self) -> Played:
        """Let time pass until all is done and all nodes are gone."""
        self.at(0.0, self._look)
        while self._events:
            wake = self.scheduler.wake_at
            self.now = self._events[0][0] if wake is None else max(self.now, min(self._events[0][0], wake))
            while self._events and self._events[0][0] <= self.now:
                _, _, do, arguments = heapq.heappop(self._events)
                do(*arguments)
            began = time.process_time()
            decisions = self.scheduler.decide(self.now)
            self.played.cpu_seconds += time.process_time() - began
            for decision in decisions:
                self._carry_out(decision)
        return self.played

    # -- nodes --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Do what the autoscaler does: add nodes for what is pending, take those that are idle."""
        wanted = _packed([self._executors[number].cpus for number in self._pending])
        for _ in range(min(wanted, self.most - len(self.nodes)) - self._coming):
            self._coming += 1
            self.at(self.now + NODE_SECONDS * self.random.uniform(0.8, 1.2), self._come)
        for name, node in list(self.nodes.items()):
            if not node.executors and self.now - node.idle_since >= NODE_IDLE_SECONDS:
                self._go(name)
        if self.scheduler.view.pending or self.nodes or self._coming or len(self._events):
            self.at(self.now + LOOK_SECONDS, self._look)

    def _come(self) -> None:
        self._coming -= 1
        played, name = self.played, f"node{self.played.nodes}"
        played.nodes += 1
        self.nodes[name] = Node(self.now, idle_since=self.now)
        played.most_nodes = max(played.most_nodes, len(self.nodes))
        self.scheduler.handle(NodeChanged(name, {"CPU": CPUS}, "spot"), self.now)
        if self.spot:
            end = self.now + self.random.expovariate(1 / LIFE_SECONDS)
            if self.random.random() < 0.5:
                self.at(max(self.now, end - NOTICE_SECONDS), self._announce, name, end)
            self.at(end, self._lose, name)
        self._place_all()

    def _announce(self, name: str, end: float) -> None:
        if name in self.nodes:
            self.scheduler.handle(NodeDraining(name, end), self.now)

    def _lose(self, name: str) -> None:
        if name in self.nodes:
            self.played.lost += 1
            executors = list(self.nodes[name].executors)
            self._go(name)
            for number in executors:
                self._died(number, "its node was lost")

    def _go(self, name: str) -> None:
        node = self.nodes.pop(name)
        self.played.node_seconds += self.now - node.came
        self.played.in_vain += not node.used
        self.played.gone_at = self.now
        self.scheduler.handle(NodeRemoved(name), self.now)

    # -- executors ----------------------------------------------------------------------------------------------

    def _place_all(self) -> None:
        for number in list(self._pending):
            self._place(self._executors[number])

    def _place(self, executor: Executor) -> None:
        """Have Ray find room for an executor: on the node that was asked for, or else on any."""
        asked = executor.node
        names = [asked] if asked in self.nodes and self.nodes[asked].free >= executor.cpus else list(self.nodes)
        banned = set(executor.not_on)
        name = next((one for one in names if one not in banned and self.nodes[one].free >= executor.cpus), None)
        if name is None:
            self._pending[executor.id] = None
            return
        self._pending.pop(executor.id, None)
        executor.node, node = name, self.nodes[name]
        node.free -= executor.cpus
        node.executors.add(executor.id)
        self.at(self.now + START_SECONDS, self._ready, executor.id)

    def _ready(self, number: int) -> None:
        executor = self._executors.get(number)
        if executor is not None and executor.node is not None:
            executor.ready = True
            self.scheduler.handle(ExecutorReady(number, executor.node), self.now)

    def _ended(self, number: int) -> Executor | None:
        executor = self._executors.pop(number, None)
        self._pending.pop(number, None)
        node = self.nodes.get(executor.node or "") if executor is not None else None
        if node is not None and number in node.executors:
            node.executors.discard(number)
            node.free += executor.cpus if executor is not None else 0
            node.idle_since = self.now
            if self._pending:
                self._place_all()
        return executor

    def _died(self, number: int, reason: str) -> None:
        executor = self._ended(number)
        if executor is not None:
            kind = ExecutorLost if executor.ready else ExecutorFailed
            self.scheduler.handle(kind(number, reason), self.now)

    def _stopped(self, number: int) -> None:
        if self._ended(number) is not None:
            self.scheduler.handle(ExecutorStopped(number), self.now)

    # -- messages -----------------------------------------------------------------------------------------------

    def _carry_out(self, decision: Instruction) -> None:
        match decision:
            case Start(number, lane, node):
                executor = self._executors[number] = Executor(number, lane, node, decision.not_on)
                self._place(executor)
            case Assign(number, messages):
                executor = self._executors[number]
                executor.messages.extend(messages)
                if len(executor.messages) == len(messages):
                    self.scheduler.handle(Begun(number), self.now)
                    self._begin(executor)
            case Recall(number):
                waiting = self._executors[number].messages
                back = [waiting.pop() for _ in range(len(waiting) - 1)]
                self.scheduler.handle(Recalled(number, [message.seq for message in reversed(back)]), self.now)
            case Stop(number):
                self.at(self.now + 0.1, self._stopped, number)
            case Kill(number):
                self._died(number, decision.reason)
            case Drop(message):
                raise AssertionError(f"{message.id} was given up: {message.reason}")

    def _begin(self, executor: Executor) -> None:
        message = executor.messages[0]
        if message.settling:
            self.at(self.now + 0.05, self._settled, executor.id, message)
            return
        self.nodes[executor.node or ""].used = True
        self.played.waits.append(self.now - message.submitted)
        self.at(self.now + self._lengths[message.id], self._finished, executor.id, message)

    def _settled(self, number: int, message: Message) -> None:
        """Have what was lost run again, as with ``acks_late``."""
        if self._over(number, message):
            self.played.again += 1
            self._submit(message.id, message.task)

    def _finished(self, number: int, message: Message) -> None:
        if self._over(number, message):
            self.played.finished += 1
            self.played.done_at = self.now

    def _over(self, number: int, message: Message) -> bool:
        executor = self._executors.get(number)
        if executor is None or not executor.messages or executor.messages[0] is not message:
            return False
        executor.messages.popleft()
        runtime = 0.0 if message.settling else self._lengths[message.id]
        self.scheduler.handle(Finished(number, message.seq, runtime), self.now)
        if executor.messages:
            self._begin(executor)
        return True


def _packed(requests: list[float]) -> int:
    """Return how many nodes hold so much, packed as Ray's autoscaler does it: the largest first."""
    nodes: Counter[float] = Counter()
    for request in sorted(requests, reverse=True):
        free = next((free for free in sorted(nodes) if free >= request and nodes[free]), None)
        if free is None:
            free = CPUS
        else:
            nodes[free] -= 1
        nodes[free - request] += 1
    return nodes.total()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000, help="most nodes (%(default)s)")
    parser.add_argument("--hours", type=float, default=0.5, help="work for so long, on all of them (%(default)s)")
    parser.add_argument("--no-spot", action="store_true", help="no node is lost")
    options = parser.parse_args()
    cluster = Cluster(options.nodes, spot=not options.no_spot)
    wave = options.nodes * CPUS * options.hours * 3600
    cluster.submit(wave)
    # Another one once all have gone.
    cluster.at(4 * options.hours * 3600, cluster.submit, wave / 10)
    played = cluster.run()
    least = played.work / CPUS
    idle = played.nodes * NODE_IDLE_SECONDS
    table = Table(title=f"0 to {options.nodes} nodes of {CPUS:g} CPUs and back, twice", show_header=False)
    for name, value in (
        ("messages", f"{played.finished:,}"),
        ("nodes at most, in all", f"{played.most_nodes:,}, {played.nodes:,}"),
        ("nodes that were lost; messages that ran again", f"{played.lost:,}; {played.again:,}"),
        ("nodes that came in vain", f"{played.in_vain:,}"),
        ("node-seconds over the least possible", f"{played.node_seconds / least:.2f}"),
        ("the same, with the minute that each node is idle", f"{played.node_seconds / (least + idle):.2f}"),
        ("messages waited, half, and 95 %", _waits(played.waits)),
        ("nodes gone after the last message", f"{played.gone_at - played.done_at:,.0f} s"),
        ("CPU of the scheduler", f"{played.cpu_seconds:,.0f} s"),
    ):
        table.add_row(name, value)
    Console().print(table)


def _waits(waits: list[float]) -> str:
    parts = statistics.quantiles(waits, n=20)
    return f"{parts[9]:,.0f} s, {parts[18]:,.0f} s"


if __name__ == "__main__":
    main()
