"""Runs the scheduler on a simulated cluster, such as a thousand nodes and a million messages. Needs no Ray.

    python -m raycelery.bench.micro.simulate_scheduler --nodes 1000 --messages 1000000 --queues 200

Executors become ready a moment after their start, and messages take random times. Prints decisions per CPU second,
bytes per waiting message, fairness between queues, and CPU time per decision for growing backlogs. Times of the
simulated cluster are in seconds of its own clock.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from raycelery.scheduler.events import (
    AddLane,
    ExecutorReady,
    ExecutorStopped,
    Finished,
    NodeChanged,
    Recalled,
    SetLimit,
    SetRate,
    Submit,
)
from raycelery.scheduler.instructions import Assign, Instruction, Recall, Start, Stop, ToPeers
from raycelery.scheduler.model import Lane, Message, Policy
from raycelery.scheduler.scheduler import Scheduler

#: Resource requests of lanes, each with the number of queues out of 20 that use it.
REQUESTS = [
    ({"CPU": 1.0}, 8),
    ({"CPU": 2.0}, 6),
    ({"CPU": 0.5}, 3),
    ({"CPU": 4.0, "memory": 8e9}, 2),
    ({"CPU": 16.0}, 1),
]
NODE = {"CPU": 16.0, "memory": 64e9}
START_SECONDS = 0.5


@dataclass
class Played:
    """What happened on the simulated cluster."""

    finished: int = 0
    decisions: int = 0
    batches: int = 0
    cpu_seconds: float = 0.0
    makespan: float = 0.0
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    busy_cpu_seconds: float = 0.0


class Cluster:
    """Simulates nodes and executors for a scheduler.

    Arguments:
        nodes: number of nodes, of 16 CPUs each.
        seed: seed of the random durations.
    """

    def __init__(self, nodes: int, seed: int = 7) -> None:
        self.scheduler = Scheduler(Policy(idle_seconds=5.0, max_executors=100 * nodes, demand_ahead=0))
        self.random = random.Random(seed)
        self.now = 0.0
        self.played = Played()
        self._events: list[tuple[float, int, str, int, int]] = []
        self._ticks = itertools.count()
        self._given: dict[int, list[Message]] = {}
        self._lanes: dict[int, Lane] = {}
        self._nodes: dict[int, str | None] = {}
        for number in range(nodes):
            self.scheduler.handle(NodeChanged(f"node{number}", NODE), 0.0)

    def submit(self, messages: int, queues: int) -> None:
        """Fill ``queues`` queues with ``messages`` messages of mixed requests, priorities and limits."""
        kinds = [request for request, share in REQUESTS for _ in range(share)]
        lanes = [Lane(key=f"lane{i}", request=request) for i, request in enumerate({str(k): k for k in kinds}.values())]
        by_text = {str(lane.request): lane for lane in lanes}
        for lane in lanes:
            self.scheduler.handle(AddLane(lane), self.now)
        for queue in range(0, queues, 10):
            self.scheduler.handle(SetLimit(f"queue:q{queue}", 40), self.now)
        for queue in range(5, queues, 25):
            self.scheduler.handle(SetRate(f"task{queue}", 200.0), self.now)
        scheduler, draw = self.scheduler, self.random
        for number in range(messages):
            queue = number % queues
            lane = by_text[str(kinds[queue % len(kinds)])]
            scheduler.handle(
                Submit(
                    Message(f"id{number}", f"task{queue}", f"q{queue}", lane.key, priority=draw.choice((0, 0, 0, 5)))
                ),
                0.0,
            )

    def run(self, limit: int | None = None) -> Played:
        """Simulate until no messages are left, or ``limit`` messages are finished."""
        scheduler, played = self.scheduler, self.played
        while scheduler.view.pending and (limit is None or played.finished < limit):
            begun = time.process_time()
            decisions = scheduler.decide(self.now)
            played.cpu_seconds += time.process_time() - begun
            for decision in decisions:
                self._carry_out(decision)
            if not self._advance():
                break
        played.makespan = self.now
        return played

    def _carry_out(self, decision: Instruction) -> None:
        if isinstance(decision, ToPeers):
            return  # it is alone
        played = self.played
        played.decisions += 1
        if isinstance(decision, Assign):
            played.decisions += len(decision.messages) - 1
            played.batches += 1
            waiting = self._given.setdefault(decision.executor_id, [])
            idle = not waiting
            for message in decision.messages:
                played.waits[message.queue].append(self.now - message.submitted)
            waiting.extend(decision.messages)
            if idle:
                self._begin(decision.executor_id)
        elif isinstance(decision, Start):
            self._lanes[decision.executor_id] = decision.lane
            self._nodes[decision.executor_id] = decision.node
            self._at(START_SECONDS, "ready", decision.executor_id)
        elif isinstance(decision, Stop):
            self._at(0.05, "stopped", decision.executor_id)
        elif isinstance(decision, Recall):
            kept, back = self._given[decision.executor_id][:1], self._given[decision.executor_id][1:]
            self._given[decision.executor_id] = kept
            self.scheduler.handle(Recalled(decision.executor_id, [message.seq for message in back]), self.now)

    def _at(self, seconds: float, kind: str, executor: int, seq: int = 0) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._ticks), kind, executor, seq))

    def _begin(self, executor: int) -> None:
        message = self._given[executor][0]
        # Skewed, like durations of trainings: most take a second, some take many.
        length = min(60.0, self.random.lognormvariate(0.0, 1.0))
        self.played.busy_cpu_seconds += length * self._lanes[executor].request.get("CPU", 0)
        self._at(length, "finished", executor, message.seq)

    def _advance(self) -> bool:
        """Process the next events; return False if there are none and the scheduler has no timer."""
        wake = self.scheduler.wake_at
        if not self._events and wake is None:
            return False
        self.now = min([self._events[0][0]] if self._events else [], default=wake or 0.0)
        if wake is not None:
            self.now = max(min(self.now, wake), 0.0) if self._events else wake
        scheduler, played = self.scheduler, self.played
        while self._events and self._events[0][0] <= self.now:
            _, _, kind, executor, seq = heapq.heappop(self._events)
            begun = time.process_time()
            if kind == "finished":
                messages = self._given[executor]
                if messages and messages[0].seq == seq:
                    messages.pop(0)
                    scheduler.handle(Finished(executor, seq, 1.0), self.now)
                    played.finished += 1
                    if messages:
                        self._begin(executor)
            elif kind == "ready":
                scheduler.handle(ExecutorReady(executor, self._nodes[executor] or "node0"), self.now)
            else:
                scheduler.handle(ExecutorStopped(executor), self.now)
                self._given.pop(executor, None)
            played.cpu_seconds += time.process_time() - begun
        return True


def backlogs(nodes: int, queues: int, sizes: list[int]) -> Iterator[tuple[int, float, float]]:
    """Yield, per backlog, its size, the bytes of each waiting message, and the CPU microseconds of a decision."""
    for size in sizes:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cluster = Cluster(nodes)
        cluster.submit(size, queues)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / size
        played = cluster.run(limit=min(size // 2, 20_000))
        yield size, grown, played.cpu_seconds / played.decisions * 1e6


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queues", type=int, default=200)
    options = parser.parse_args()
    console = Console()

    table = Table(title="What a decision costs as the backlog grows")
    for name in ("waiting messages", "bytes each", "CPU us per decision"):
        table.add_column(name, justify="right")
    sizes = sorted({options.messages // 100, options.messages // 10, options.messages})
    for size, grown, cost in backlogs(options.nodes, options.queues, sizes):
        table.add_row(f"{size:,}", f"{grown:,.0f}", f"{cost:.1f}")
    console.print(table)

    cluster = Cluster(options.nodes)
    cluster.submit(options.messages, options.queues)
    played = cluster.run()
    waits = {queue: statistics.median(times) for queue, times in played.waits.items()}
    ordinary = [wait for queue, wait in waits.items() if int(queue[1:]) % 10 and int(queue[1:]) % 25 != 5]
    table = Table(
        title=f"{options.nodes} nodes of 16 CPUs, {options.messages:,} messages in {options.queues} queues",
        show_header=False,
    )
    table.add_row("finished", f"{played.finished:,}")
    table.add_row("decisions", f"{played.decisions:,}, {played.decisions / played.cpu_seconds:,.0f} per CPU second")
    table.add_row("makespan", f"{played.makespan:,.0f} s of the played cluster")
    share = played.busy_cpu_seconds / (played.makespan * 16 * options.nodes)
    table.add_row("CPUs busy", f"{share:.0%} over the makespan, limited and rate-limited queues included")
    table.add_row(
        "median wait of a queue",
        f"{min(ordinary):,.0f} to {max(ordinary):,.0f} s, {statistics.median(ordinary):,.0f} s in the middle",
    )
    console.print(table)


if __name__ == "__main__":
    main()
