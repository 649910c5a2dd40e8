"""The CPUs that this application wants from others, and what it borrows: see :mod:`raycelery.dispatcher.cpu_leases`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ray

from raycelery.dispatcher.peers import NOTHING, lacking

if TYPE_CHECKING:
    from raycelery.dispatcher.cpu_leases import Sharing

logger = logging.getLogger(__name__)

#: Seconds after which guests without work give their CPUs back.
UNUSED_SECONDS = 0.5
#: Seconds between questions whether loans still stand, and between wishes for what is given up for good.
CHECK_SECONDS = 0.7
AGAIN_SECONDS = 5.0
#: Executors for which CPUs are asked for at once.
_MOST = 64


@dataclass
class _Borrowed:
    """CPUs of another application, and the guests that use them."""

    giver: str
    guests: set[int] = field(default_factory=set)
    called: bool = False


class Borrowing:
    """Asks for CPUs, and has guests run on what others lend.

    Arguments:
        sharing: that it is part of.
    """

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._dispatcher = sharing.dispatcher
        self._peers = sharing.peers
        self._borrowed: dict[str, _Borrowed] = {}
        #: Executors that are guests, with the loan that they use now; since when those without one, or without work.
        self._guests: dict[int, str | None] = {}
        self._unused: dict[int, float] = {}
        self._checked = 0.0

    def borrowed(self) -> dict[str, float]:
        """Return the CPUs that guests use now, by the application that lends them."""
        found: defaultdict[str, float] = defaultdict(float)
        for borrowed in self._borrowed.values():
            found[borrowed.giver] += sum(self._cpus(guest) for guest in borrowed.guests)
        return dict(found)

    def share(self) -> float:
        """Return the CPUs that this application has, those of guests that are starting among them."""
        scheduler = self._dispatcher.scheduler
        starting = [
            guest for guest, loan in self._guests.items() if loan is not None and guest in scheduler.view.executors
        ]
        return scheduler.pausing.in_use() + sum(
            self._cpus(guest) for guest in starting if not scheduler.view.executors[guest].ready
        )

    def look(self, now: float) -> None:
        """See what is lacking, and what is not used."""
        self._look_after_guests(now)
        self._wish(now)

    # -- what it wants ------------------------------------------------------------------------------------------

    def _wish(self, now: float) -> None:
        scheduler = self._dispatcher.scheduler
        if self._borrowed and now - self._checked >= CHECK_SECONDS:
            self._checked = now
            for giver in {borrowed.giver for borrowed in self._borrowed.values()}:
                self._sharing.soon(self._check(giver))
        late = [number for number in self._late() if scheduler.pausing.could_run(number)]
        guests = [guest for guest in self._idle_guests() if scheduler.pausing.could_run(guest)]
        if not (late or guests):
            return
        free = ray.available_resources()
        missing = lacking((self._request(number) for number in late), free)
        late = [number for number in late if missing.keys() & self._request(number).keys()]
        guestlike = [number for number in late if self._can_be_guest(number)]
        if missing.keys() - {"CPU"} or len(guestlike) < len(late):
            self._wish_for_good(late, missing)
        units = [self._cpus(number) for number in guests]
        if "CPU" in missing:
            units += [self._cpus(number) for number in guestlike]
        cpus = free.get("CPU", 0)
        for guest in guests if not late else ():
            # Ray has room for it by now, but was not asked for that.
            if cpus >= self._cpus(guest):
                cpus -= self._cpus(guest)
                units.remove(self._cpus(guest))
                scheduler.pausing_at(time.time()).end_unused(guest)
        if units:
            self._sharing.soon(self._wish_for_loans(units[:_MOST], guestlike, missing))

    async def _wish_for_loans(self, units: list[float], late: list[int], missing: dict[str, float]) -> None:
        """Ask others for CPUs; where nobody has enough of them on one node, have executors end."""
        name, share = self._dispatcher.name, self.share()
        wishes = self._peers.ask_all("wish", name, units, share, list(self._borrowed))
        most = 0.0
        for answer in await asyncio.gather(*wishes, return_exceptions=True):
            if isinstance(answer, float):
                most = max(most, answer)
        executors = self._dispatcher.scheduler.view.executors
        large = [number for number in late if number in executors and self._cpus(number) > most + NOTHING]
        now = time.time()
        handles = self._dispatcher.executor_manager.handles
        if any(number in handles and handles[number].late <= now for number in large):
            self._wish_for_good(large, missing)

    def _wish_for_good(self, late: list[int], missing: dict[str, float]) -> None:
        """Ask others to have executors end."""
        handles = self._dispatcher.executor_manager.handles
        for number in late:
            if number in handles:
                handles[number].late = time.time() + AGAIN_SECONDS
        self._peers.ask_all("make_room", missing, self.share())

    def _late(self) -> list[int]:
        """Return the executors that Ray has not started in time."""
        executor_manager, executors, now = (
            self._dispatcher.executor_manager,
            self._dispatcher.scheduler.view.executors,
            time.time(),
        )
        return [
            number
            for number, handle in executor_manager.handles.items()
            if handle.late <= now
            and number not in executor_manager.connected
            and number not in self._guests
            and number in executors
            and executors[number].killed is None
        ]

    def _idle_guests(self) -> list[int]:
        return [number for number, loan in self._guests.items() if loan is None]

    def _cpus(self, number: int) -> float:
        return self._request(number).get("CPU", 0)

    def _request(self, number: int) -> dict[str, float]:
        return dict(self._dispatcher.scheduler.view.executors[number].lane.lane.request)

    def _can_be_guest(self, number: int) -> bool:
        return self._cpus(number) > 0 and not self._dispatcher.scheduler.view.executors[number].lane.lane.one_shot

    # -- what it has --------------------------------------------------------------------------------------------

    def lend(self, number: str, giver: str, node: str, cpus: float) -> bool:
        """Take CPUs that another application lends; return whether there is still use for them."""
        scheduler = self._dispatcher.scheduler
        borrowed = _Borrowed(giver)
        for guest in self._idle_guests():
            executor = scheduler.view.executors[guest]
            if executor.node == node and scheduler.pausing.could_run(guest) and self._cpus(guest) <= cpus + NOTHING:
                cpus -= self._cpus(guest)
                borrowed.guests.add(guest)
                scheduler.pausing_at(time.time()).resume(guest)
        for late in self._late():
            useful = self._can_be_guest(late) and scheduler.pausing.could_run(late)
            if useful and self._cpus(late) <= cpus + NOTHING:
                started = scheduler.pausing_at(time.time()).start_leased(late, node)
                if started is not None:
                    cpus -= self._cpus(started)
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
            self._dispatcher.scheduler.pausing_at(time.time()).pause(guest)
        self._dispatcher.turn_soon()
        return True

    def settle(self) -> None:
        """Give back what was called in and is quiet."""
        for number, borrowed in list(self._borrowed.items()):
            self._repay_if_quiet(number, borrowed)

    def _repay_if_quiet(self, number: str, borrowed: _Borrowed) -> None:
        scheduler = self._dispatcher.scheduler
        if borrowed.called and all(scheduler.pausing.quiet(guest) for guest in borrowed.guests):
            del self._borrowed[number]
            for guest in borrowed.guests:
                if guest in self._guests:
                    self._guests[guest] = None
                    self._unused[guest] = time.monotonic()
            try:
                self._peers.ask(borrowed.giver, "repaid", number)
            except ValueError:
                logger.debug("%s has ended meanwhile", borrowed.giver)
            self._dispatcher.turn_soon()

    async def _check(self, giver: str) -> None:
        """Tell how many CPUs this application has, and ask whether loans still stand."""
        mine = [number for number, borrowed in self._borrowed.items() if borrowed.giver == giver]
        try:
            standing = await self._peers.ask(giver, "loans", self._dispatcher.name, self.share(), mine)
        except (ValueError, ray.exceptions.RayError):
            standing = []
        for number in mine:
            if number not in standing:
                self.call_in(number)

    def _look_after_guests(self, now: float) -> None:
        scheduler = self._dispatcher.scheduler
        for guest, loan in list(self._guests.items()):
            executor = scheduler.view.executors.get(guest)
            if executor is None:
                self.ended(guest)
            elif executor.outstanding or not executor.ready or scheduler.pausing.could_run(guest):
                self._unused.pop(guest, None)
            else:
                since = self._unused.setdefault(guest, now)
                # Without CPUs of its own it must not keep the place of an executor of another lane.
                if loan is None and (scheduler.view.starved or now - since > scheduler.view.policy.idle_seconds):
                    scheduler.pausing_at(time.time()).end_unused(guest)
        for number, borrowed in list(self._borrowed.items()):
            unused = [now - self._unused.get(guest, now) > UNUSED_SECONDS for guest in borrowed.guests]
            if all(unused):
                self.call_in(number)

    def ended(self, executor: int) -> None:
        """Take note that an executor has ended."""
        loan = self._guests.pop(executor, None)
        self._unused.pop(executor, None)
        borrowed = self._borrowed.get(loan or "")
        if borrowed is not None:
            borrowed.guests.discard(executor)
            if not borrowed.guests:
                borrowed.called = True
