"""Applications that share a cluster lend each other CPUs.

Ray knows nothing of applications: what one holds, it holds until its executors end. So a dispatcher whose executors
Ray has no room for asks the others. One that has CPUs *lends* them: it pauses executors, which keep their CPUs and
their processes, and the other runs *guests* meanwhile, executors for which Ray is asked for no CPUs. Nothing needs to
be started anew when CPUs change hands again, so they can go round: where there are fewer of them than applications that
want some, each has them for a slice of time. Who has least comes first, and of those who has waited longest.

Only CPUs are lent; what else guests need, Ray is asked for. Where memory, GPUs or other resources are what is missing,
executors are given up for good, as :meth:`raycelery.dispatcher.brain.Brain.make_room` decides.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray

from raycelery.dispatcher.neighbours import Neighbours, lacking

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher

logger = logging.getLogger(__name__)

#: Seconds between looks, and that CPUs stay with one application while others want them.
LOOK_SECONDS = 0.2
SLICE_SECONDS = 1.0
#: Seconds for which a wish counts unless it is renewed, and after which a guest without work gives its CPUs back.
WISH_SECONDS = 1.5
UNUSED_SECONDS = 0.5
#: Seconds between questions whether loans still stand, and between wishes for what is given up for good.
CHECK_SECONDS = 0.7
AGAIN_SECONDS = 5.0
#: Seconds without a word from a borrower after which its loans are called in.
SILENT_SECONDS = 3.0
#: Executors for which CPUs are asked for at once, and what differences between amounts are due to rounding.
_MOST = 64
_NOTHING = 1e-9


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


@dataclass
class _Borrowed:
    """CPUs of another application, and the guests that use them."""

    giver: str
    guests: set[int] = field(default_factory=set)
    called: bool = False


class Sharing:
    """A dispatcher's loans, in both directions.

    Arguments:
        dispatcher: whose.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._neighbours = Neighbours(dispatcher.name)
        self._numbers = itertools.count(1)
        self._wishes: dict[str, _Wish] = {}
        self._lent: dict[str, _Lent] = {}
        self._borrowed: dict[str, _Borrowed] = {}
        #: Executors that are guests, with the loan that they use now; since when those without one, or without work.
        self._guests: dict[int, str | None] = {}
        self._unused: dict[int, float] = {}
        #: When applications had their latest turn, this one among them; when this one last had something to do.
        self._served: dict[str, float] = {}
        self._worked = time.monotonic()
        self._checked = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def forever(self) -> None:
        """Look, wait, and look again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look()
            except ray.exceptions.RayError as exc:
                logger.warning("the cluster's other applications cannot be asked: %s", exc)

    def _soon(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def look(self) -> None:
        """See what is wanted, and by whom."""
        now = time.monotonic()
        if self._dispatcher.brain.pending:
            self._worked = now
        self._look_after_guests(now)
        self._wish(now)
        self._wishes = {name: wish for name, wish in self._wishes.items() if now - wish.at < WISH_SECONDS}
        for number, lent in list(self._lent.items()):
            if lent.since is not None and not lent.called:
                over = now - lent.since >= SLICE_SECONDS and self._another_is_due(lent, now)
                if over or now - max(lent.since, lent.heard) >= SILENT_SECONDS:
                    self._call_in(number, lent)
        self._grant()
        self._dispatcher.turn_soon()

    def borrowed(self) -> dict[str, float]:
        """Return the CPUs that guests use now, by the application that lends them."""
        found: Counter[str] = Counter()
        for borrowed in self._borrowed.values():
            found[borrowed.giver] += sum(self._request(guest)["CPU"] for guest in borrowed.guests)  # type: ignore[assignment]
        return dict(found)

    # -- what this application wants ----------------------------------------------------------------------------

    def _wish(self, now: float) -> None:
        brain = self._dispatcher.brain
        if self._borrowed and now - self._checked >= CHECK_SECONDS:
            self._checked = now
            for giver in {borrowed.giver for borrowed in self._borrowed.values()}:
                self._soon(self._check(giver))
        late = [number for number in self._late() if self._has_work(number)]
        guests = [guest for guest in self._idle_guests() if self._has_work(guest)]
        if not (late or guests):
            return
        free = ray.available_resources()
        missing = lacking((self._request(number) for number in late), free)
        guestlike = [number for number in late if self._can_be_guest(number)]
        if missing.keys() - {"CPU"} or len(guestlike) < len(late):
            self._wish_for_good(late, missing)
        units = [self._request(number)["CPU"] for number in guests]
        if "CPU" in missing:
            units += [self._request(number)["CPU"] for number in guestlike]
        cpus = free.get("CPU", 0)
        for guest in guests if not late else ():
            # Ray has room for it by now, but was not asked for that.
            if cpus >= self._request(guest)["CPU"]:
                cpus -= self._request(guest)["CPU"]
                units.remove(self._request(guest)["CPU"])
                brain.end_unused(guest, time.time())
        if units:
            self._soon(self._wish_for_loans(units[:_MOST], guestlike, missing))

    async def _wish_for_loans(self, units: list[float], late: list[int], missing: dict[str, float]) -> None:
        """Ask others for CPUs; where nobody has enough of them on one node, have executors end."""
        name, share = self._dispatcher.name, self._dispatcher.brain.in_use()
        wishes = [other.wish.remote(name, units, share) for other in self._neighbours.all()]
        most = 0.0
        for answer in await asyncio.gather(*wishes, return_exceptions=True):
            if isinstance(answer, float):
                most = max(most, answer)
        executors = self._dispatcher.brain.executors
        large = [number for number in late if number in executors and self._request(number)["CPU"] > most + _NOTHING]
        now = time.time()
        handles = self._dispatcher.fleet.handles
        if any(number in handles and handles[number].late <= now for number in large):
            self._wish_for_good(large, missing)

    def _wish_for_good(self, late: list[int], missing: dict[str, float]) -> None:
        """Ask others to have executors end."""
        handles = self._dispatcher.fleet.handles
        for number in late:
            if number in handles:
                handles[number].late = time.time() + AGAIN_SECONDS
        for other in self._neighbours.all():
            other.make_room.remote(missing, self._dispatcher.brain.in_use())

    async def _check(self, giver: str) -> None:
        """Tell how many CPUs this application has, and ask whether loans still stand."""
        share = self._dispatcher.brain.in_use()
        mine = [number for number, borrowed in self._borrowed.items() if borrowed.giver == giver]
        try:
            standing = await self._neighbours.get(giver).loans.remote(self._dispatcher.name, share)
        except (ValueError, ray.exceptions.RayError):
            standing = []
        for number in mine:
            if number not in standing:
                self.call_in(number)

    def _late(self) -> list[int]:
        """Return the executors that Ray has not started in time."""
        fleet, executors, now = self._dispatcher.fleet, self._dispatcher.brain.executors, time.time()
        return [
            number
            for number, handle in fleet.handles.items()
            if handle.late <= now
            and number not in fleet.connected
            and number not in self._guests
            and number in executors
            and executors[number].killed is None
        ]

    def _idle_guests(self) -> list[int]:
        return [number for number, loan in self._guests.items() if loan is None]

    def _has_work(self, number: int) -> bool:
        executor = self._dispatcher.brain.executors.get(number)
        return executor is not None and executor.lane.waiting > 0

    def _request(self, number: int) -> dict[str, float]:
        return dict(self._dispatcher.brain.executors[number].lane.lane.request)

    def _can_be_guest(self, number: int) -> bool:
        lane = self._dispatcher.brain.executors[number].lane.lane
        return lane.request.get("CPU", 0) > 0 and not lane.one_shot

    # -- what it borrows ----------------------------------------------------------------------------------------

    def lend(self, number: str, giver: str, node: str, cpus: float) -> bool:
        """Take CPUs that another application lends; return whether there is still use for them."""
        brain, now = self._dispatcher.brain, time.time()
        borrowed = _Borrowed(giver)
        for guest in self._idle_guests():
            executor = brain.executors[guest]
            if executor.node == node and self._has_work(guest) and self._request(guest)["CPU"] <= cpus + _NOTHING:
                cpus -= self._request(guest)["CPU"]
                borrowed.guests.add(guest)
                brain.resume(guest, now)
        for late in self._late():
            useful = self._can_be_guest(late) and self._has_work(late)
            if useful and self._request(late)["CPU"] <= cpus + _NOTHING:
                started = brain.start_guest(late, node, now)
                if started is not None:
                    cpus -= self._request(started)["CPU"]
                    borrowed.guests.add(started)
        if not borrowed.guests:
            return False
        self._borrowed[number] = borrowed
        self._guests.update(dict.fromkeys(borrowed.guests, number))
        self._dispatcher.turn_soon()
        return True

    def call_in(self, number: str) -> bool:
        """Give CPUs back as soon as what runs on them has ended; return whether there is such a loan."""
        borrowed = self._borrowed.get(number)
        if borrowed is None:
            return False
        borrowed.called = True
        for guest in borrowed.guests:
            self._dispatcher.brain.pause(guest, time.time())
        self._dispatcher.turn_soon()
        return True

    def settle(self) -> None:
        """Give back, and hand over, what is quiet by now; to be called after each turn of the brain."""
        for number, borrowed in list(self._borrowed.items()):
            self._repay_if_quiet(number, borrowed)
        for number, lent in list(self._lent.items()):
            if lent.since is None and all(self._dispatcher.brain.quiet(executor) for executor in lent.executors):
                self._hand_over(number, lent)

    def _repay_if_quiet(self, number: str, borrowed: _Borrowed) -> None:
        brain = self._dispatcher.brain
        if borrowed.called and all(brain.quiet(guest) for guest in borrowed.guests):
            del self._borrowed[number]
            for guest in borrowed.guests:
                if guest in self._guests:
                    self._guests[guest] = None
                    self._unused[guest] = time.monotonic()
            try:
                self._neighbours.get(borrowed.giver).repaid.remote(number)
            except ValueError:
                logger.debug("%s has ended meanwhile", borrowed.giver)
            self._dispatcher.turn_soon()

    def _look_after_guests(self, now: float) -> None:
        brain = self._dispatcher.brain
        for guest, loan in list(self._guests.items()):
            executor = brain.executors.get(guest)
            if executor is None:
                self.ended(guest)
            elif executor.outstanding or executor.lane.waiting or not executor.ready:
                self._unused.pop(guest, None)
            else:
                since = self._unused.setdefault(guest, now)
                # Without CPUs of its own it must not keep the place of an executor of another lane.
                if loan is None and (brain.starved or now - since > brain.policy.idle_seconds):
                    brain.end_unused(guest, time.time())
        for number, borrowed in list(self._borrowed.items()):
            unused = [now - self._unused.get(guest, now) > UNUSED_SECONDS for guest in borrowed.guests]
            if all(unused):
                self.call_in(number)

    def ended(self, executor: int) -> None:
        """Take note that an executor has ended, whatever part it has in loans."""
        loan = self._guests.pop(executor, None)
        self._unused.pop(executor, None)
        borrowed = self._borrowed.get(loan or "")
        if borrowed is not None:
            borrowed.guests.discard(executor)
            if not borrowed.guests:
                borrowed.called = True
        for number, lent in list(self._lent.items()):
            if executor in lent.executors:
                # Its CPUs are Ray's again, and may have been given to anybody.
                self._call_in(number, lent)

    # -- what it lends ------------------------------------------------------------------------------------------

    def wish(self, name: str, units: list[float], share: float) -> float:
        """Note what another application wants, and how many CPUs it has; return the most that it could ever get."""
        self._wishes[name] = _Wish(units, share, time.monotonic())
        self._grant()
        self._dispatcher.turn_soon()
        return self._dispatcher.brain.most_lendable(self._guests)

    def loans(self, name: str, share: float) -> list[str]:
        """Return the loans of an application, and note how many CPUs it has."""
        wish = self._wishes.get(name)
        self._wishes[name] = _Wish(wish.units if wish else [], share, time.monotonic())
        theirs = {number: lent for number, lent in self._lent.items() if lent.to == name}
        for lent in theirs.values():
            lent.heard = time.monotonic()
        return list(theirs)

    def _in_need(self) -> list[tuple[float, float, str]]:
        """Return who wants more, the poorest and longest waiting first: share, latest turn, name."""
        return sorted((w.share, self._served.get(name, 0.0), name) for name, w in self._wishes.items() if w.units)

    def _grant(self) -> None:
        """Lend as much as is fair."""
        while any(self._grant_one(name) for _, _, name in self._in_need()):
            pass

    def _grant_one(self, name: str) -> bool:
        brain, wish = self._dispatcher.brain, self._wishes[name]
        unit = wish.units[0]
        rest = brain.in_use() - unit
        # Down to an even share at once, beyond it by turns.
        even = rest >= wish.share + unit
        if not even and any(lent.since is None and lent.to == name for lent in self._lent.values()):
            return False
        chosen = brain.lendable(unit, self._guests, time.time(), 0.0 if even else SLICE_SECONDS)
        idle = all(number in brain.idle for number in chosen)
        if not chosen or (not idle and rest < wish.share):
            return False
        cpus = sum(self._request(number)["CPU"] for number in chosen)
        node = str(brain.executors[chosen[0]].node)
        for executor in chosen:
            brain.pause(executor, time.time())
        self._lend(_Lent(name, chosen, cpus, node))
        return True

    def _lend(self, lent: _Lent) -> None:
        wish = self._wishes[lent.to]
        wish.units.pop(0)
        wish.share += lent.cpus
        self._lent[f"{self._dispatcher.name}/{next(self._numbers)}"] = lent
        self._dispatcher.turn_soon()

    def _hand_over(self, number: str, lent: _Lent) -> None:
        lent.since = self._served[lent.to] = time.monotonic()
        self._soon(self._offer(number, lent))

    async def _offer(self, number: str, lent: _Lent) -> None:
        try:
            other = self._neighbours.get(lent.to)
            taken = await other.lend.remote(number, self._dispatcher.name, lent.node, lent.cpus)
        except (ValueError, ray.exceptions.RayError):
            taken = False
        if not taken:
            self._wishes.pop(lent.to, None)
            self.repaid(number)

    def _another_is_due(self, lent: _Lent, now: float) -> bool:
        """Return whether somebody has no more than the borrower would have without these CPUs."""
        brain = self._dispatcher.brain
        holder = self._wishes.get(lent.to)
        without = (holder.share if holder else lent.cpus) - lent.cpus + _NOTHING
        if self._misses(lent.executors) and brain.in_use() <= without:
            return True
        if now - self._worked > brain.policy.idle_seconds:
            return True  # so that the executors can end
        return any(share <= without for share, _, name in self._in_need() if name != lent.to)

    def _misses(self, executors: list[int]) -> bool:
        """Return whether this application could use the CPUs of executors that are lent."""
        return bool(self._dispatcher.brain.starved) or any(self._has_work(executor) for executor in executors)

    def _call_in(self, number: str, lent: _Lent) -> None:
        if not lent.called:
            lent.called = True
            self._soon(self._demand(number, lent))

    async def _demand(self, number: str, lent: _Lent) -> None:
        try:
            known = await self._neighbours.get(lent.to).call_in.remote(number)
        except (ValueError, ray.exceptions.RayError):
            known = False  # it has ended, and its guests with it
        if not known:
            self.repaid(number)

    def repaid(self, number: str) -> None:
        """Take CPUs back; whoever is due next gets them."""
        lent = self._lent.pop(number, None)
        if lent is None:
            return
        brain, name = self._dispatcher.brain, self._dispatcher.name
        if lent.to in self._wishes:
            self._wishes[lent.to].share -= lent.cpus
        executors = [executor for executor in lent.executors if executor in brain.executors]
        in_need = [entry for entry in self._in_need() if entry[2] != lent.to]
        mine = (brain.in_use(), self._served.get(name, 0.0), name)
        if in_need and executors == lent.executors and (not self._misses(executors) or in_need[0] < mine):
            self._lend(_Lent(in_need[0][2], executors, lent.cpus, lent.node))
            return
        now = time.monotonic()
        self._served[name] = now
        for executor in executors:
            if now - self._worked > brain.policy.idle_seconds:
                brain.end_unused(executor, time.time())
            else:
                brain.resume(executor, time.time())
        self._dispatcher.turn_soon()
