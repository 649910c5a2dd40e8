"""Simulates a batch of tasks on hosts: makespan and CPU utilisation. Pure: no clock, no Ray.

A task first waits (for data, for other tasks) and then computes; it occupies its slot all the time. As in Ray, slots
depend on requests: a host starts tasks while their requests add up to no more than its CPUs and memory. If its tasks
compute more than it has CPUs, all get an equal share and take longer.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Seconds between two tasks of a slot.
BETWEEN_SECONDS = 0.002
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Job:
    """A task to simulate.

    Arguments:
        kind: tasks of a kind share a queue; kinds get equal shares of the CPUs, as lanes do.
        wait: seconds that it waits, independent of its host's load.
        cpu: CPU seconds that it computes.
        width: CPUs that it computes on at once.
        num_cpus: CPUs that it asks for.
        memory: bytes of memory that it asks for.
    """

    kind: str
    wait: float
    cpu: float
    width: float = 1.0
    num_cpus: float = 1.0
    memory: float = 0.0


@dataclass(frozen=True)
class Hosts:
    """Hosts of equal size.

    Arguments:
        count: number of hosts.
        cpus: CPUs of each.
        memory: bytes of each that tasks may ask for; None for no limit.
        slots: most tasks of each at once, as with so many worker processes; None for no limit.
    """

    count: int = 1
    cpus: float = 16.0
    memory: float | None = None
    slots: int | None = None

    def room(self, num_cpus: float, memory: float) -> int:
        """Return how many tasks with such a request a host runs at once."""
        if self.slots is not None:
            return self.slots
        most = []
        if num_cpus > 0:
            most.append(int(self.cpus / num_cpus + _ROUNDING))
        if memory > 0 and self.memory is not None:
            most.append(int(self.memory / memory + _ROUNDING))
        return min(most, default=1_000)


@dataclass(frozen=True)
class Prediction:
    """The result of a simulated batch.

    Arguments:
        makespan: seconds from its submission to its last result, on running executors.
        utilisation: share of the hosts' CPU seconds that the tasks computed.
        loaded: the same share, only while all slots were occupied and more tasks waited, and without the first task of
            each slot; equal to ``utilisation`` if there was no such time.
        concurrency: most tasks at once.
        unplaced: tasks that fit on no host.
    """

    makespan: float
    utilisation: float
    loaded: float
    concurrency: int
    unplaced: int = 0


@dataclass
class _Host:
    """The state of a host. Its tasks compute in *work time*, which is slower when they need more CPUs than it has."""

    free_cpus: float
    free_memory: float
    free_slots: int
    #: Heaps of waiting tasks (end of the wait, index) and of computing tasks (end in work time, index).
    waiting: list[tuple[float, int]] = field(default_factory=list)
    computing: list[tuple[float, int]] = field(default_factory=list)
    wanted: float = 0.0
    work_time: float = 0.0
    now: float = 0.0
    version: int = 0


def simulate(jobs: Sequence[Job], hosts: Hosts) -> Prediction:
    """Simulate jobs that are submitted at the same time; those of one kind start in their order."""
    return _Play(jobs, hosts).run()


class _Play:
    def __init__(self, jobs: Sequence[Job], hosts: Hosts) -> None:
        self._hosts = hosts
        bounded = float("inf") if hosts.memory is None else hosts.memory
        self._by_slots = hosts.slots is not None
        slots = 1 << 30 if hosts.slots is None else hosts.slots
        self._all = [_Host(hosts.cpus, bounded, slots) for _ in range(hosts.count)]
        self._jobs = jobs
        self._queues: dict[str, deque[int]] = {}
        self._unplaced = 0
        for number, job in enumerate(jobs):
            if self._fits(self._all[0], job):
                self._queues.setdefault(job.kind, deque()).append(number)
            else:
                self._unplaced += 1
        self._left = len(jobs) - self._unplaced
        self._shares = dict.fromkeys(self._queues, 0.0)
        self._running = self._most = 0
        self._used = 0.0
        self._events: list[tuple[float, int, int]] = []
        #: When all slots had finished their first tasks, and when the last task started; with the CPU seconds used by
        #: then.
        self._full: tuple[float, float] | None = None
        self._emptied: tuple[float, float] | None = None
        self._ended = 0

    def run(self) -> Prediction:
        now = 0.0
        while self._place_anywhere():
            pass
        slots = self._running
        for index in range(len(self._all)):
            self._note(index)
        while self._events:
            now, index, version = heapq.heappop(self._events)
            host = self._all[index]
            if version != host.version:
                continue
            self._advance(host, now)
            if self._settle(host, now) and self._queues:
                while self._place(host, index):
                    pass
            self._note(index)
            if self._full is None and self._ended >= slots:
                self._full = self._so_far(now)
        capacity = self._hosts.cpus * self._hosts.count
        whole = self._used / (capacity * now) if now else 0.0
        loaded = whole
        if self._full is not None and self._emptied is not None and self._emptied[0] > self._full[0]:
            loaded = (self._emptied[1] - self._full[1]) / (capacity * (self._emptied[0] - self._full[0]))
        return Prediction(now, whole, loaded, self._most, self._unplaced)

    def _fits(self, host: _Host, job: Job) -> bool:
        if self._by_slots:
            return host.free_slots > 0
        return job.num_cpus <= host.free_cpus + _ROUNDING and job.memory <= host.free_memory + _ROUNDING

    def _place_anywhere(self) -> bool:
        """Start one task on the host with the most room."""
        order = sorted(range(len(self._all)), key=lambda n: (-self._all[n].free_slots, -self._all[n].free_cpus))
        return any(self._place(self._all[index], index) for index in order)

    def _place(self, host: _Host, index: int) -> bool:
        for kind in sorted(self._queues, key=lambda kind: self._shares[kind]):
            queue = self._queues[kind]
            job = self._jobs[queue[0]]
            if self._fits(host, job):
                number = queue.popleft()
                if not queue:
                    del self._queues[kind]
                host.free_cpus -= job.num_cpus
                host.free_memory -= job.memory
                host.free_slots -= 1
                self._shares[kind] += job.num_cpus
                heapq.heappush(host.waiting, (host.now + BETWEEN_SECONDS + job.wait, number))
                self._running += 1
                self._most = max(self._most, self._running)
                if not self._queues and host.now > 0:
                    self._emptied = self._so_far(host.now)
                return True
        return False

    def _so_far(self, now: float) -> tuple[float, float]:
        """Return the time and the CPU seconds used so far."""
        for host in self._all:
            self._advance(host, now)
        return now, self._used

    def _advance(self, host: _Host, now: float) -> None:
        passed = now - host.now
        if passed > 0 and host.wanted > 0:
            rate = min(1.0, self._hosts.cpus / host.wanted)
            host.work_time += passed * rate
            self._used += passed * rate * host.wanted
        host.now = now

    def _settle(self, host: _Host, now: float) -> bool:
        """Let tasks whose wait is over compute, and end those that have computed enough; return whether one ended."""
        ended = False
        while host.waiting and host.waiting[0][0] <= now + _ROUNDING:
            _, number = heapq.heappop(host.waiting)
            job = self._jobs[number]
            heapq.heappush(host.computing, (host.work_time + job.cpu / job.width, number))
            host.wanted += job.width
        while host.computing and host.computing[0][0] <= host.work_time + _ROUNDING:
            _, number = heapq.heappop(host.computing)
            job = self._jobs[number]
            host.wanted -= job.width
            host.free_cpus += job.num_cpus
            host.free_memory += job.memory
            host.free_slots += 1
            self._shares[job.kind] -= job.num_cpus
            self._running -= 1
            self._ended += 1
            ended = True
        return ended

    def _note(self, index: int) -> None:
        """Schedule the next event of a host."""
        host = self._all[index]
        host.version += 1
        times = []
        if host.waiting:
            times.append(host.waiting[0][0])
        if host.computing:
            rate = min(1.0, self._hosts.cpus / host.wanted)
            times.append(host.now + max(0.0, host.computing[0][0] - host.work_time) / rate)
        if times:
            heapq.heappush(self._events, (max(host.now, min(times)), index, host.version))
