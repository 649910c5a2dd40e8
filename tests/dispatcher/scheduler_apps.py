"""Applications that share a cluster, each with a scheduler of its own, and a Ray that gives executors what is free.

Time stands still until :meth:`World.pass_time` is called. Executors start as soon as Ray has room for them. What
applications say to each other arrives at once, unless ``delays`` is set: then :meth:`World.deliver` has to be called.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from raycelery.scheduler import events
from raycelery.scheduler.instructions import (
    AskForRoom,
    Assign,
    CheckLeases,
    CountFree,
    DemandCpus,
    Instruction,
    Kill,
    OfferLease,
    Recall,
    ReclaimLease,
    ReturnLease,
    Start,
    Stop,
)
from raycelery.scheduler.model import Lane, Message, Policy
from raycelery.scheduler.scheduler import Scheduler


class Worker:
    """An executor as it really is."""

    def __init__(self, start: Start) -> None:
        self.id = start.executor_id
        self.cpus = start.lane.request["CPU"]
        self.without_cpus = start.without_cpus
        #: Where it was asked for; where it is, once Ray has started it.
        self.asked = start.node
        self.node: str | None = None
        self.messages: list[Message] = []


class App:
    """One application.

    Arguments:
        world: that it is part of.
        name: unique.
    """

    def __init__(self, world: World, name: str, **policy: Any) -> None:
        self.world = world
        self.name = name
        self.scheduler = Scheduler(Policy(**policy), debug=True, name=name)
        self.workers: dict[int, Worker] = {}
        self.done: list[Message] = []
        self._ids = itertools.count(1)
        for node, cpus in world.nodes.items():
            self.handle(events.NodeChanged(node, {"CPU": cpus}))

    @property
    def pending(self) -> int:
        """Messages that are not finished."""
        return self.scheduler.view.pending

    def handle(self, event: events.Event) -> None:
        """Tell the scheduler something."""
        self.scheduler.handle(event, self.world.now)

    def submit(self, count: int = 1, cpus: float = 1.0) -> None:
        """Submit messages that are alike."""
        lane = Lane(f"{self.name}-{cpus}", {"CPU": cpus}, app=self.name)
        self.handle(events.AddLane(lane))
        for _ in range(count):
            message = Message(f"{self.name}{next(self._ids)}", "task", "celery", lane.key)
            self.handle(events.Submit(message))

    def running(self) -> list[Message]:
        """Return what runs."""
        return [worker.messages[0] for worker in self.workers.values() if worker.messages]

    def busy_cpus(self, node: str | None = None) -> float:
        """Return the CPUs that what runs uses, on all nodes or on one."""
        return sum(w.cpus for w in self.workers.values() if w.messages and node in (None, w.node))

    def finish(self, worker: Worker) -> None:
        """Have an executor end its message."""
        message = worker.messages.pop(0)
        self.done.append(message)
        self.handle(events.Finished(worker.id, message.seq, 1.0))

    def turn(self) -> bool:
        """Carry out what the scheduler decides; return whether that was anything."""
        instructions = self.scheduler.decide(self.world.now)
        for instruction in instructions:
            self._carry_out(instruction)
        return bool(instructions)

    def _carry_out(self, instruction: Instruction) -> None:
        world = self.world
        if isinstance(instruction, Start):
            self.workers[instruction.executor_id] = Worker(instruction)
        elif isinstance(instruction, Assign):
            worker = self.workers[instruction.executor_id]
            worker.messages += instruction.messages
            self.handle(events.Begun(worker.id))
        elif isinstance(instruction, Stop):
            assert not self.workers.pop(instruction.executor_id).messages
            self.handle(events.ExecutorStopped(instruction.executor_id))
        elif isinstance(instruction, Kill):
            if self.workers.pop(instruction.executor_id, None) is not None:
                self.handle(events.ExecutorLost(instruction.executor_id, "killed"))
        elif isinstance(instruction, Recall):
            worker = self.workers[instruction.executor_id]
            back, worker.messages = worker.messages[1:], worker.messages[:1]
            self.handle(events.Recalled(worker.id, [message.seq for message in back]))
        elif isinstance(instruction, CountFree):
            self.handle(events.FreeCounted({"CPU": sum(map(world.free, world.nodes))}))
        elif isinstance(instruction, AskForRoom):
            for peer in self.peers():
                world.say(peer, events.MakeRoom(instruction.amounts, instruction.share))
        elif isinstance(instruction, DemandCpus):
            world.call(lambda: self._demand(instruction))
        elif isinstance(instruction, OfferLease):
            world.call(lambda: self._offer(instruction))
        elif isinstance(instruction, ReclaimLease):
            world.call(lambda: self._reclaim(instruction))
        elif isinstance(instruction, ReturnLease):
            world.say(instruction.giver, events.LeaseReturned(instruction.lease_id))
        elif isinstance(instruction, CheckLeases):
            world.call(lambda: self._check(instruction))

    def peers(self) -> list[str]:
        """Return the names of the others."""
        return [name for name in self.world.apps if name != self.name]

    def _demand(self, demand: DemandCpus) -> None:
        most = 0.0
        for name in self.peers():
            peer = self.world.apps[name]
            peer.handle(events.PeerDemand(self.name, list(demand.units), demand.share, demand.lease_ids))
            most = max(most, peer.scheduler.view.most_lendable())
        self.world.say(self.name, events.DemandAnswered(demand, most))

    def _offer(self, offer: OfferLease) -> None:
        peer = self.world.apps.get(offer.peer)
        if peer is not None:
            peer.handle(events.LeaseGranted(offer.lease_id, self.name, offer.node, offer.cpus))
        if peer is None or not peer.scheduler.view.has_lease(offer.lease_id):
            self.world.say(self.name, events.LeaseRefused(offer.lease_id))

    def _reclaim(self, lease: ReclaimLease) -> None:
        peer = self.world.apps.get(lease.peer)
        if peer is not None and peer.scheduler.view.has_lease(lease.lease_id):
            peer.handle(events.LeaseReclaimed(lease.lease_id))
        else:
            self.world.say(self.name, events.LeaseReturned(lease.lease_id))

    def _check(self, check: CheckLeases) -> None:
        giver, standing = self.world.apps.get(check.giver), []
        if giver is not None:
            giver.handle(events.LeasesConfirmed(self.name, check.share, check.lease_ids))
            standing = giver.scheduler.view.leases_of(self.name)
        self.world.say(self.name, events.LeasesChecked(check.lease_ids, standing))


class World:
    """A cluster.

    Arguments:
        nodes: CPUs of each.
        delays: what applications say to each other arrives when :meth:`deliver` is called.
    """

    def __init__(self, *nodes: float, delays: bool = False) -> None:
        self.now = 1_000_000.0
        self.nodes = {f"n{number}": cpus for number, cpus in enumerate(nodes)}
        self.apps: dict[str, App] = {}
        self.delays = delays
        self._said: deque[Callable[[], None]] = deque()

    def app(self, name: str, **policy: Any) -> App:
        """Add an application."""
        app = self.apps[name] = App(self, name, **policy)
        return app

    def free(self, node: str) -> float:
        """Return the CPUs that Ray has free on a node."""
        held = (w.cpus for a in self.apps.values() for w in a.workers.values() if w.node == node and not w.without_cpus)
        return self.nodes[node] - sum(held)

    def say(self, name: str, event: events.Event) -> None:
        """Tell an application something, if it is there still when that arrives."""

        def arrive() -> None:
            if name in self.apps:
                self.apps[name].handle(event)

        self.call(arrive)

    def call(self, what: Callable[[], None]) -> None:
        """Have something happen when it arrives."""
        self._said.append(what)

    def deliver(self, most: int = 1_000_000) -> None:
        """Have what was said arrive."""
        for _ in range(min(most, len(self._said))):
            self._said.popleft()()

    def settle(self) -> None:
        """Have all schedulers decide, and Ray start what fits, until nothing changes."""
        for _ in range(10_000):
            changed = [app.turn() for app in list(self.apps.values())]
            started = self._start()
            if not self.delays and self._said:
                self.deliver()
            elif not any(changed) and not started:
                break
        else:
            raise AssertionError("they go on without end")
        self.check()

    def _start(self) -> bool:
        started = False
        for app in self.apps.values():
            for worker in app.workers.values():
                if worker.node is None:
                    nodes = [worker.asked] if worker.without_cpus else sorted(self.nodes, key=worker.asked.__ne__)
                    fits = (node for node in nodes if node and (worker.without_cpus or self.free(node) >= worker.cpus))
                    worker.node = next(fits, None)
                    if worker.node is not None:
                        started = True
                        app.handle(events.ExecutorReady(worker.id, worker.node))
        return started

    def pass_time(self, seconds: float) -> None:
        """Let time pass, waking schedulers when they want to be."""
        until = self.now + seconds
        self.settle()
        for _ in range(10_000):
            wakes = [app.scheduler.wake_at for app in self.apps.values()]
            due = min((at for at in wakes if at is not None), default=None)
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.settle()
        else:
            raise AssertionError("a scheduler wants to be woken all the time")
        self.now = until
        self.settle()

    def work(self, seconds: float, each: float = 0.1) -> None:
        """Let time pass in which all messages run as long."""
        until = self.now + seconds
        while self.now < until:
            running = [
                (app, worker) for app in self.apps.values() for worker in app.workers.values() if worker.messages
            ]
            self.pass_time(each)
            for app, worker in running:
                if worker.messages and app.workers.get(worker.id) is worker:
                    app.finish(worker)
            self.settle()

    def die(self, app: App) -> None:
        """Have an application end, and its executors with it."""
        del self.apps[app.name]

    def check(self) -> None:
        """Check what must hold at any time."""
        for app in self.apps.values():
            app.scheduler.validate()
        for node, cpus in self.nodes.items():
            busy = sum(app.busy_cpus(node) for app in self.apps.values())
            assert busy <= cpus or node in self.orphaned(), f"{busy} of {cpus} CPUs of {node} are busy"

    def orphaned(self) -> set[str | None]:
        """Return the nodes where leased executors run on CPUs of an application that has died."""
        return {
            worker.node
            for app in self.apps.values()
            if any(giver not in self.apps for giver in app.scheduler.view.leased_from())
            for worker in app.workers.values()
            if worker.without_cpus
        }
