"""The CPUs that this application lends to others: see :mod:`raycelery.dispatcher.cpu_leases`."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from raycelery.dispatcher.peers import NOTHING

if TYPE_CHECKING:
    from raycelery.dispatcher.cpu_leases import Sharing

#: Seconds that CPUs stay with one application while others want them.
SLICE_SECONDS = 1.0
#: Seconds for which a wish counts unless it is renewed, and after which the loans of a silent borrower are called in.
WISH_SECONDS = 1.5
SILENT_SECONDS = 3.0


@dataclass
class _Wish:
    """What another application wants: the CPUs of each executor; and how many CPUs it has."""

    units: list[float]
    share: float
    at: float


@dataclass
class _Lent:
    """CPUs that are lent, or will be once their executors are quiet.

    Arguments:
        to: the application.
        executors: those that are paused.
        cpus: of them together.
        node: where.
        since: when they were handed over, by `time.monotonic`; None before.
        heard: when the borrower last said that it has them.
        called: whether they were called in.
    """

    to: str
    executors: list[int]
    cpus: float
    node: str
    since: float | None = None
    heard: float = 0.0
    called: bool = False


class Lending:
    """Pauses executors, and hands their CPUs to whoever is due.

    Arguments:
        sharing: that it is part of.
    """

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._dispatcher = sharing.dispatcher
        self._peers = sharing.peers
        self._numbers = itertools.count(1)
        self._wishes: dict[str, _Wish] = {}
        self._lent: dict[str, _Lent] = {}
        #: When applications had their latest turn, this one among them; when this one last had something to do.
        self._served: dict[str, float] = {}
        self._worked = time.monotonic()

    def lent(self) -> dict[str, float]:
        """Return the CPUs that others have or will have as soon as their executors are quiet, by application."""
        found: defaultdict[str, float] = defaultdict(float)
        for lent in self._lent.values():
            found[lent.to] += lent.cpus
        return dict(found)

    def look(self, now: float) -> None:
        """See who is due."""
        if self._dispatcher.scheduler.view.pending:
            self._worked = now
        self._wishes = {name: wish for name, wish in self._wishes.items() if now - wish.at < WISH_SECONDS}
        for number, lent in list(self._lent.items()):
            if lent.since is not None and not lent.called:
                over = now - lent.since >= SLICE_SECONDS and self._another_is_due(lent, now)
                if over or now - max(lent.since, lent.heard) >= SILENT_SECONDS:
                    self._call_in(number, lent)
        self._grant()

    # -- what others say ----------------------------------------------------------------------------------------

    def wish(self, name: str, units: list[float], share: float, has: list[str]) -> float:
        """Note what another application wants; return the most that it could ever get.

        Arguments:
            name: the application.
            units: the CPUs that it wants, for each executor.
            share: CPUs that it has.
            has: the loans that are part of its share, of this application and of others.
        """
        self._note(name, units, share, has)
        self._grant()
        self._dispatcher.turn_soon()
        return self._dispatcher.scheduler.pausing.most_lendable()

    def loans(self, name: str, share: float, has: list[str]) -> list[str]:
        """Return the loans of an application, and note how many CPUs it has; arguments as of :meth:`wish`."""
        self._note(name, None, share, has)
        theirs = {number: lent for number, lent in self._lent.items() if lent.to == name}
        for lent in theirs.values():
            lent.heard = time.monotonic()
        return list(theirs)

    def _note(self, name: str, units: list[float] | None, share: float, has: list[str]) -> None:
        # What it was promised comes when an executor has ended its message, and what is on its way to it was not there
        # yet when it asked: no reason to promise more.
        promised = [lent.cpus for number, lent in self._lent.items() if lent.to == name and number not in has]
        before = self._wishes[name].units if name in self._wishes else []
        left = before if units is None else units[len(promised) :]
        self._wishes[name] = _Wish(left, share + sum(promised), time.monotonic())

    def repaid(self, number: str) -> None:
        """Take CPUs back; whoever is due next gets them."""
        lent = self._lent.pop(number, None)
        if lent is None:
            return
        scheduler, name = self._dispatcher.scheduler, self._dispatcher.name
        if lent.to in self._wishes:
            self._wishes[lent.to].share -= lent.cpus
        executors = [executor for executor in lent.executors if executor in scheduler.view.executors]
        in_need = [entry for entry in self._in_need() if entry[2] != lent.to]
        mine = (scheduler.pausing.in_use(), self._served.get(name, 0.0), name)
        if in_need and executors == lent.executors and (not self._misses(executors) or in_need[0] < mine):
            self._lend(_Lent(in_need[0][2], executors, lent.cpus, lent.node))
            return
        now = time.monotonic()
        self._served[name] = now
        for executor in executors:
            if now - self._worked > scheduler.view.policy.idle_seconds:
                scheduler.pausing_at(time.time()).end_unused(executor)
            else:
                scheduler.pausing_at(time.time()).resume(executor)
        self._dispatcher.turn_soon()

    # -- who gets what ------------------------------------------------------------------------------------------

    def _in_need(self) -> list[tuple[float, float, str]]:
        """Return who wants more, the poorest and longest waiting first: share, latest turn, name."""
        return sorted((w.share, self._served.get(name, 0.0), name) for name, w in self._wishes.items() if w.units)

    def _grant(self) -> None:
        """Lend as much as is fair."""
        while any(self._grant_one(name) for _, _, name in self._in_need()):
            pass

    def _grant_one(self, name: str) -> bool:
        scheduler, wish = self._dispatcher.scheduler, self._wishes[name]
        unit = wish.units[0]
        rest = scheduler.pausing.in_use() - unit
        # Down to an even share at once, beyond it by turns.
        even = rest >= wish.share + unit
        if not even and any(lent.since is None and lent.to == name for lent in self._lent.values()):
            return False
        chosen = scheduler.pausing_at(time.time()).lendable(unit, 0.0 if even else SLICE_SECONDS)
        spare = all(scheduler.pausing.spare(number) for number in chosen)
        if not chosen or (not spare and rest < wish.share):
            return False
        cpus = sum(scheduler.view.executors[number].lane.lane.request["CPU"] for number in chosen)
        node = str(scheduler.view.executors[chosen[0]].node)
        for executor in chosen:
            scheduler.pausing_at(time.time()).pause(executor)
        self._lend(_Lent(name, chosen, cpus, node))
        return True

    def _lend(self, lent: _Lent) -> None:
        wish = self._wishes[lent.to]
        wish.units.pop(0)
        wish.share += lent.cpus
        self._lent[f"{self._dispatcher.name}/{next(self._numbers)}"] = lent
        self._dispatcher.turn_soon()

    def settle(self) -> None:
        """Hand over what was promised and is quiet; call in what its own executors need again."""
        for number, lent in list(self._lent.items()):
            quiet = all(self._dispatcher.scheduler.pausing.quiet(executor) for executor in lent.executors)
            if lent.since is None and quiet:
                self._hand_over(number, lent)
            elif lent.since is not None and not quiet:
                # One that waited for its subtasks goes on.
                self._call_in(number, lent)

    def _hand_over(self, number: str, lent: _Lent) -> None:
        lent.since = self._served[lent.to] = time.monotonic()
        self._sharing.soon(self._offer(number, lent))

    async def _offer(self, number: str, lent: _Lent) -> None:
        try:
            taken = await self._peers.ask(lent.to, "lend", number, self._dispatcher.name, lent.node, lent.cpus)
        except (ValueError, ray.exceptions.RayError):
            taken = False
        if not taken:
            self._wishes.pop(lent.to, None)
            self.repaid(number)

    # -- when it comes back -------------------------------------------------------------------------------------

    def _another_is_due(self, lent: _Lent, now: float) -> bool:
        """Return whether somebody has no more than the borrower would have without these CPUs."""
        scheduler = self._dispatcher.scheduler
        holder = self._wishes.get(lent.to)
        without = (holder.share if holder else lent.cpus) - lent.cpus + NOTHING
        if self._misses(lent.executors) and scheduler.pausing.in_use() <= without:
            return True
        if now - self._worked > scheduler.view.policy.idle_seconds:
            return True  # so that the executors can end
        return any(share <= without for share, _, name in self._in_need() if name != lent.to)

    def _misses(self, executors: list[int]) -> bool:
        """Return whether this application could use the CPUs of executors that are lent."""
        return bool(self._dispatcher.scheduler.view.starved) or any(
            self._dispatcher.scheduler.pausing.could_run(executor) for executor in executors
        )

    def _call_in(self, number: str, lent: _Lent) -> None:
        if not lent.called:
            lent.called = True
            self._sharing.soon(self._demand(number, lent))

    async def _demand(self, number: str, lent: _Lent) -> None:
        try:
            known = await self._peers.ask(lent.to, "call_in", number)
        except (ValueError, ray.exceptions.RayError):
            known = False  # it has ended, and its guests with it
        if not known:
            self.repaid(number)

    def ended(self, executor: int) -> None:
        """Take note that an executor has ended."""
        for number, lent in list(self._lent.items()):
            if executor in lent.executors:
                # Its CPUs are Ray's again, and may have been given to anybody.
                self._call_in(number, lent)
