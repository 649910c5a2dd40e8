"""The CPUs that this application leases to others: who is due, and when they are reclaimed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

from raycelery.scheduler import events
from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.instructions import OfferLease, ReclaimLease
from raycelery.scheduler.messages import Messages
from raycelery.scheduler.nodes import ROUNDING, UNIT
from raycelery.scheduler.pausing import Pausing
from raycelery.scheduler.turn import Turn

#: Seconds that CPUs stay with one application while others want them.
SLICE_SECONDS = 1.0
#: Seconds for which a demand counts unless it is renewed, and after which the leases of a silent peer are reclaimed.
DEMAND_SECONDS = 1.5
SILENT_SECONDS = 3.0


@dataclass(slots=True)
class _Demand:
    """What a peer wants: the CPUs of each executor; and how many CPUs it has."""

    units: list[float]
    share: float
    at: float


@dataclass(slots=True)
class Given:
    """CPUs that are leased, or will be once their executors are quiet.

    Arguments:
        peer: the application that gets them.
        executors: those that are paused.
        cpus: of them together.
        node: where.
        since: when they were handed over; None before.
        heard: when the peer last said that it has them.
        reclaimed: whether they were reclaimed.
    """

    peer: str
    executors: list[int]
    cpus: float
    node: str
    since: float | None = None
    heard: float = 0.0
    reclaimed: bool = False


class LeasesGiven:
    """Pauses executors, and offers their CPUs to whoever is due.

    Arguments:
        name: of this application, with which the ids of its leases begin.
        turn: collects the instructions.
        messages: whether this application has anything to do.
        executors: whose CPUs are leased.
        capacity: which lanes starve.
        pausing: pauses executors.
    """

    def __init__(
        self, name: str, turn: Turn, messages: Messages, executors: Executors, capacity: Capacity, pausing: Pausing
    ) -> None:
        self._name = name
        self._turn = turn
        self._messages = messages
        self._executors = executors
        self._capacity = capacity
        self._pausing = pausing
        self._ids = itertools.count(1)
        self._demands: dict[str, _Demand] = {}
        #: Leases by id.
        self.given: dict[str, Given] = {}
        #: When applications had their latest turn, this one among them.
        self._served: dict[str, float] = {}
        #: Whether this application has something to do, and when it last had.
        self._working = False
        self._worked = float("-inf")

    @property
    def active(self) -> bool:
        """Whether there are leases or demands, which are to be looked at regularly."""
        return bool(self.given or self._demands)

    def by_peer(self) -> dict[str, float]:
        """Return the CPUs that others have, or will have as soon as their executors are quiet, by application."""
        found: defaultdict[str, float] = defaultdict(float)
        for lease in self.given.values():
            found[lease.peer] += lease.cpus
        return dict(found)

    def ids_of(self, peer: str) -> list[str]:
        """Return the ids of the leases of a peer."""
        return [lease_id for lease_id, lease in self.given.items() if lease.peer == peer]

    # -- what peers say -----------------------------------------------------------------------------------------

    def demanded(self, event: events.PeerDemand) -> None:
        """See :class:`raycelery.scheduler.events.PeerDemand`."""
        self._note(event.peer, list(event.units), event.share, event.lease_ids)
        self._grant()

    def confirmed(self, event: events.LeasesConfirmed) -> None:
        """See :class:`raycelery.scheduler.events.LeasesConfirmed`."""
        self._note(event.peer, None, event.share, event.lease_ids)
        for lease in self.given.values():
            if lease.peer == event.peer:
                lease.heard = self._turn.now

    def _note(self, peer: str, units: list[float] | None, share: float, has: list[str]) -> None:
        # What it was promised comes when an executor has ended its message, and what is on its way to it was not there
        # yet when it asked: no reason to promise more.
        promised = [lease.cpus for lease_id, lease in self.given.items() if lease.peer == peer and lease_id not in has]
        before = self._demands[peer].units if peer in self._demands else []
        left = before if units is None else units[len(promised) :]
        self._demands[peer] = _Demand(left, share + sum(promised), self._turn.now)

    def refused(self, event: events.LeaseRefused) -> None:
        """See :class:`raycelery.scheduler.events.LeaseRefused`."""
        lease = self.given.get(event.lease_id)
        if lease is not None:
            self._demands.pop(lease.peer, None)
            self._take_back(event.lease_id)

    def returned(self, event: events.LeaseReturned) -> None:
        """See :class:`raycelery.scheduler.events.LeaseReturned`."""
        self._take_back(event.lease_id)

    def _take_back(self, lease_id: str) -> None:
        """Take CPUs back; whoever is due next gets them."""
        lease = self.given.pop(lease_id, None)
        if lease is None:
            return
        if lease.peer in self._demands:
            self._demands[lease.peer].share -= lease.cpus
        executors = [executor_id for executor_id in lease.executors if executor_id in self._executors.all]
        in_need = [entry for entry in self._in_need() if entry[2] != lease.peer]
        mine = (self._pausing.in_use(), self._served.get(self._name, 0.0), self._name)
        if in_need and executors == lease.executors and (not self._misses(executors) or in_need[0] < mine):
            self._promise(Given(in_need[0][2], executors, lease.cpus, lease.node))
            return
        self._served[self._name] = self._turn.now
        for executor_id in executors:
            if self._idle():
                self._pausing.end_unused(executor_id)
            else:
                self._pausing.resume(executor_id)

    # -- who gets what ------------------------------------------------------------------------------------------

    def _in_need(self) -> list[tuple[float, float, str]]:
        """Return who wants more, the poorest and longest waiting first: share, latest turn, name."""
        return sorted((d.share, self._served.get(peer, 0.0), peer) for peer, d in self._demands.items() if d.units)

    def _grant(self) -> None:
        """Promise as much as is fair."""
        while any(self._grant_one(peer) for _, _, peer in self._in_need()):
            pass

    def _grant_one(self, peer: str) -> bool:
        demand = self._demands[peer]
        unit = demand.units[0]
        rest = self._pausing.in_use() - unit
        # Down to an even share at once, beyond it by turns.
        even = rest >= demand.share + unit
        if not even and any(lease.since is None and lease.peer == peer for lease in self.given.values()):
            return False
        chosen = self._pausing.lendable(unit, 0.0 if even else SLICE_SECONDS)
        spare = all(self._pausing.spare(executor_id) for executor_id in chosen)
        if not chosen or (not spare and rest < demand.share):
            return False
        executors = [self._executors.all[executor_id] for executor_id in chosen]
        cpus = sum(executor.cpus for executor in executors) / UNIT
        node = str(executors[0].node)
        for executor_id in chosen:
            self._pausing.pause(executor_id)
        self._promise(Given(peer, chosen, cpus, node))
        return True

    def _promise(self, lease: Given) -> None:
        demand = self._demands[lease.peer]
        demand.units.pop(0)
        demand.share += lease.cpus
        self.given[f"{self._name}/{next(self._ids)}"] = lease

    # -- what is looked at --------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Offer what was promised and is quiet; reclaim what its own executors need again."""
        if self._messages.pending:
            self._working = True
        elif self._working:
            self._working, self._worked = False, self._turn.now
        for lease_id, lease in self.given.items():
            quiet = all(self._pausing.quiet(executor_id) for executor_id in lease.executors)
            if lease.since is None and quiet:
                lease.since = self._served[lease.peer] = self._turn.now
                self._turn.instructions.append(OfferLease(lease.peer, lease_id, lease.node, lease.cpus))
            elif lease.since is not None and not quiet:
                # One that waited for its subtasks goes on.
                self._reclaim(lease_id, lease)

    def look(self) -> None:
        """See who is due."""
        now = self._turn.now
        self._demands = {peer: demand for peer, demand in self._demands.items() if now - demand.at < DEMAND_SECONDS}
        for lease_id, lease in self.given.items():
            if lease.since is not None and not lease.reclaimed:
                over = now - lease.since >= SLICE_SECONDS and self._another_is_due(lease)
                if over or now - max(lease.since, lease.heard) >= SILENT_SECONDS:
                    self._reclaim(lease_id, lease)
        self._grant()

    def _another_is_due(self, lease: Given) -> bool:
        """Return whether somebody has no more than the peer would have without these CPUs."""
        holder = self._demands.get(lease.peer)
        without = (holder.share if holder else lease.cpus) - lease.cpus + ROUNDING
        if self._misses(lease.executors) and self._pausing.in_use() <= without:
            return True
        if self._idle():
            return True  # so that the executors can end
        return any(share <= without for share, _, peer in self._in_need() if peer != lease.peer)

    def _misses(self, executors: list[int]) -> bool:
        """Return whether this application could use the CPUs of executors that are leased."""
        return bool(self._capacity.starved) or any(self._pausing.could_run(executor_id) for executor_id in executors)

    def _idle(self) -> bool:
        """Return whether this application has had nothing to do for so long that its executors may end."""
        return not self._messages.pending and self._turn.now - self._worked > self._turn.policy.idle_seconds

    def _reclaim(self, lease_id: str, lease: Given) -> None:
        if not lease.reclaimed:
            lease.reclaimed = True
            self._turn.instructions.append(ReclaimLease(lease.peer, lease_id))

    def ended(self, executor_id: int) -> None:
        """Take note that an executor has ended."""
        for lease_id, lease in self.given.items():
            if executor_id in lease.executors:
                # Its CPUs are Ray's again, and may have been given to anybody.
                self._reclaim(lease_id, lease)
