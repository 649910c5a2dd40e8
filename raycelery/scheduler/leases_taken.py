"""The CPUs that this application wants from others, and what it has leased of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raycelery.scheduler import events
from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.instructions import AskForRoom, CheckLeases, CountFree, DemandCpus, ReturnLease
from raycelery.scheduler.nodes import ROUNDING, UNIT
from raycelery.scheduler.pausing import Pausing
from raycelery.scheduler.turn import Turn

#: Seconds that Ray may take to start an executor before it is taken to lack room.
PATIENCE_SECONDS = 0.5
#: Seconds after which leased executors without work give their CPUs back.
UNUSED_SECONDS = 0.5
#: Seconds between questions whether leases still stand, and between demands for executors of others to end.
CHECK_SECONDS = 0.7
AGAIN_SECONDS = 5.0
#: Executors for which CPUs are asked for at once.
_MOST = 64


def lacking(requests: Iterable[Mapping[str, float]], free: Mapping[str, float]) -> dict[str, float]:
    """Return what must be given up for ``requests`` to be met; empty if Ray has it free.

    Arguments:
        requests: of the executors that were asked for and have not appeared.
        free: what Ray has, in its units.
    """
    wanted: Counter[str] = Counter()
    for request in requests:
        wanted.update(request)
    return {name: amount - free.get(name, 0) for name, amount in wanted.items() if amount > free.get(name, 0)}


@dataclass(slots=True)
class Taken:
    """CPUs of another application, and the executors that use them."""

    giver: str
    executors: set[int] = field(default_factory=set)
    reclaimed: bool = False


class LeasesTaken:
    """Asks for CPUs, and has executors run on what others lease.

    Arguments:
        turn: collects the instructions.
        executors: that Ray has no room for, and that are leased.
        capacity: which lanes starve.
        pausing: starts leased executors, pauses them and has them go on.
    """

    def __init__(self, turn: Turn, executors: Executors, capacity: Capacity, pausing: Pausing) -> None:
        self._turn = turn
        self._executors = executors
        self._capacity = capacity
        self._pausing = pausing
        #: Leases by id.
        self.taken: dict[str, Taken] = {}
        #: Leased executors, with the lease that they use now; since when those without one, or without work.
        self._leased: dict[int, str | None] = {}
        self._unused: dict[int, float] = {}
        self._checked = 0.0

    @property
    def active(self) -> bool:
        """Whether there are leases or leased executors, which are to be looked at regularly."""
        return bool(self.taken or self._leased)

    def by_giver(self) -> dict[str, float]:
        """Return the CPUs that leased executors use now, by the application that they are of."""
        found: defaultdict[str, float] = defaultdict(float)
        for lease in self.taken.values():
            found[lease.giver] += sum(self._cpus(executor_id) for executor_id in lease.executors)
        return dict(found)

    def share(self) -> float:
        """Return the CPUs that this application has, those of leased executors that are starting among them."""
        executors = self._executors.all
        starting = [
            executor_id
            for executor_id, lease_id in self._leased.items()
            if lease_id is not None and executor_id in executors and not executors[executor_id].ready
        ]
        return self._pausing.in_use() + sum(map(self._cpus, starting))

    # -- what it wants ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See what is lacking, and what is not used."""
        self._look_after_leased()
        self._withdraw_unwanted()
        now = self._turn.now
        if self.taken and now - self._checked >= CHECK_SECONDS:
            self._checked = now
            for giver in {lease.giver for lease in self.taken.values()}:
                mine = [lease_id for lease_id, lease in self.taken.items() if lease.giver == giver]
                self._turn.instructions.append(CheckLeases(giver, self.share(), mine))
        if self._late() or self._waiting_leased():
            self._turn.instructions.append(CountFree())

    def _withdraw_unwanted(self) -> None:
        """End executors that Ray has not started in time and for which nothing waits any more, where others starve.

        Nobody is asked for room for them, and they keep the place that is booked for them.
        """
        if self._capacity.starved:
            for executor in self._not_started():
                if not (executor.lane.for_settlement or executor.lane.ahead or self._pausing.could_run(executor.id)):
                    self._executors.kill(executor, 0, "terminated", "nothing waits for it any more")

    def counted(self, event: events.FreeCounted) -> None:
        """See :class:`raycelery.scheduler.events.FreeCounted`."""
        late, leased, free = self._late(), self._waiting_leased(), event.amounts
        if not (late or leased):
            return
        missing = lacking((self._request(executor_id) for executor_id in late), free)
        late = [executor_id for executor_id in late if missing.keys() & self._request(executor_id).keys()]
        leasable = [executor_id for executor_id in late if self._can_be_leased(executor_id)]
        if missing.keys() - {"CPU"} or len(leasable) < len(late):
            self._ask_for_room(late, missing)
        units = [self._cpus(executor_id) for executor_id in leased]
        if "CPU" in missing:
            units += [self._cpus(executor_id) for executor_id in leasable]
        cpus = free.get("CPU", 0)
        for executor_id in leased if not late else ():
            # Ray has room for it by now, but was not asked for that.
            if cpus >= self._cpus(executor_id):
                cpus -= self._cpus(executor_id)
                units.remove(self._cpus(executor_id))
                self._pausing.end_unused(executor_id)
        if units:
            self._turn.instructions.append(DemandCpus(units[:_MOST], self.share(), list(self.taken), leasable, missing))

    def answered(self, event: events.DemandAnswered) -> None:
        """See :class:`raycelery.scheduler.events.DemandAnswered`."""
        executors = self._executors.all
        large = [
            executor_id
            for executor_id in event.demand.late
            if executor_id in executors and self._cpus(executor_id) > event.most + ROUNDING
        ]
        if any(executors[executor_id].late_at <= self._turn.now for executor_id in large):
            self._ask_for_room(large, event.demand.missing)

    def _ask_for_room(self, late: list[int], missing: Mapping[str, float]) -> None:
        """Ask others to have executors end."""
        for executor_id in late:
            if executor_id in self._executors.all:
                self._executors.all[executor_id].late_at = self._turn.now + AGAIN_SECONDS
        self._turn.instructions.append(AskForRoom(dict(missing), self.share()))

    def _late(self) -> list[int]:
        """Return the executors that Ray has not started in time and that could run something."""
        now = self._turn.now
        found = [one.id for one in self._not_started() if one.late_at <= now and one.id not in self._leased]
        return [executor_id for executor_id in found if self._pausing.could_run(executor_id)]

    def _not_started(self) -> list[ExecutorState]:
        """Return the executors that Ray has not started in time, and that are not to end."""
        found = []
        for executor_id in self._executors.unconnected:
            executor = self._executors.all[executor_id]
            if executor.started_at + PATIENCE_SECONDS > self._turn.now:
                break  # it is the youngest that come last
            if executor.killed is None:
                found.append(executor)
        return found

    def _idle_leased(self) -> list[int]:
        return [executor_id for executor_id, lease_id in self._leased.items() if lease_id is None]

    def _waiting_leased(self) -> list[int]:
        return [executor_id for executor_id in self._idle_leased() if self._pausing.could_run(executor_id)]

    def _cpus(self, executor_id: int) -> float:
        executor = self._executors.all.get(executor_id)
        return 0.0 if executor is None else executor.cpus / UNIT

    def _request(self, executor_id: int) -> Mapping[str, float]:
        return self._executors.all[executor_id].lane.lane.request

    def _can_be_leased(self, executor_id: int) -> bool:
        lane = self._executors.all[executor_id].lane.lane
        # Ray work that a driver starts asks Ray for CPUs, which knows nothing of leased ones.
        return self._cpus(executor_id) > 0 and not (lane.one_shot or lane.driver)

    # -- what it has --------------------------------------------------------------------------------------------

    def granted(self, event: events.LeaseGranted) -> None:
        """See :class:`raycelery.scheduler.events.LeaseGranted`."""
        lease, cpus = Taken(event.giver), event.cpus
        for executor_id in self._waiting_leased():
            executor = self._executors.all[executor_id]
            if executor.node == event.node and self._cpus(executor_id) <= cpus + ROUNDING:
                cpus -= self._cpus(executor_id)
                lease.executors.add(executor_id)
                self._pausing.resume(executor_id)
        for executor_id in self._late():
            if self._can_be_leased(executor_id) and self._cpus(executor_id) <= cpus + ROUNDING:
                started = self._pausing.start_leased(executor_id, event.node)
                if started is not None:
                    cpus -= self._cpus(started)
                    lease.executors.add(started)
        if lease.executors:
            self.taken[event.lease_id] = lease
            self._leased.update(dict.fromkeys(lease.executors, event.lease_id))

    def reclaimed(self, event: events.LeaseReclaimed) -> None:
        """See :class:`raycelery.scheduler.events.LeaseReclaimed`."""
        self._give_up(event.lease_id)

    def checked(self, event: events.LeasesChecked) -> None:
        """See :class:`raycelery.scheduler.events.LeasesChecked`."""
        for lease_id in event.lease_ids:
            if lease_id not in event.standing:
                self._give_up(lease_id)

    def _give_up(self, lease_id: str) -> None:
        """Give CPUs back as soon as what runs on them has ended."""
        lease = self.taken.get(lease_id)
        if lease is not None:
            lease.reclaimed = True
            for executor_id in lease.executors:
                self._pausing.pause(executor_id)

    def settle(self) -> None:
        """Return what was reclaimed and is quiet."""
        for lease_id, lease in list(self.taken.items()):
            if lease.reclaimed and all(self._pausing.quiet(executor_id) for executor_id in lease.executors):
                del self.taken[lease_id]
                for executor_id in lease.executors:
                    if executor_id in self._leased:
                        self._leased[executor_id] = None
                        self._unused[executor_id] = self._turn.now
                self._turn.instructions.append(ReturnLease(lease.giver, lease_id))

    def _look_after_leased(self) -> None:
        now = self._turn.now
        for executor_id, lease_id in list(self._leased.items()):
            executor = self._executors.all[executor_id]
            if executor.outstanding or not executor.ready or self._pausing.could_run(executor_id):
                self._unused.pop(executor_id, None)
                continue
            since = self._unused.setdefault(executor_id, now)
            # Without CPUs of its own it must not keep the place of an executor of another lane.
            idle = now - since > self._turn.policy.idle_seconds
            if lease_id is None and (self._capacity.starved or idle):
                self._pausing.end_unused(executor_id)
        for lease_id, lease in list(self.taken.items()):
            if all(now - self._unused.get(executor_id, now) > UNUSED_SECONDS for executor_id in lease.executors):
                self._give_up(lease_id)

    def ended(self, executor_id: int) -> None:
        """Take note that an executor has ended."""
        lease_id = self._leased.pop(executor_id, None)
        self._unused.pop(executor_id, None)
        lease = self.taken.get(lease_id or "")
        if lease is not None:
            lease.executors.discard(executor_id)
            if not lease.executors:
                lease.reclaimed = True
