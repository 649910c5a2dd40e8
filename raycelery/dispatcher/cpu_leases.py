"""What dispatchers say to each other of CPUs; what is leased to whom, the scheduler decides.

See :mod:`raycelery.scheduler.leases`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import ray

from raycelery.dispatcher import steady
from raycelery.dispatcher.peers import Peers
from raycelery.reasons import reason_of
from raycelery.scheduler import events
from raycelery.scheduler.instructions import (
    AskForRoom,
    CheckLeases,
    CountFree,
    DemandCpus,
    OfferLease,
    ReclaimLease,
    ReturnLease,
    ToPeers,
)

if TYPE_CHECKING:
    from raycelery.scheduler.scheduler import Scheduler

logger = logging.getLogger(__name__)


class CpuLeases:
    """Speaks with the dispatchers of other applications for a scheduler.

    Arguments:
        name: of this application.
        scheduler: that decides.
        on_change: called when there may be something for the scheduler to decide.
    """

    def __init__(self, name: str, scheduler: Scheduler, on_change: Callable[[], None]) -> None:
        self._name = name
        self._scheduler = scheduler
        self._on_change = on_change
        self._peers = Peers(name)
        #: Calls that have not been answered.
        self._calls: set[asyncio.Task[None]] = set()

    def _handle(self, event: events.Event) -> None:
        self._scheduler.handle(event, steady.now())
        self._on_change()

    # -- what the scheduler says --------------------------------------------------------------------------------

    def carry_out(self, instruction: ToPeers) -> None:
        """Say to other dispatchers what the scheduler wants them to know."""
        try:
            if isinstance(instruction, CountFree):
                self._handle(events.FreeCounted(ray.available_resources()))
            elif isinstance(instruction, AskForRoom):
                self._peers.ask_all("make_room", dict(instruction.amounts), instruction.share)
            elif isinstance(instruction, ReturnLease):
                self._peers.ask(instruction.giver, "lease_returned", instruction.lease_id)
            elif isinstance(instruction, DemandCpus):
                self._soon(self._demand(instruction))
            elif isinstance(instruction, OfferLease):
                self._soon(self._offer(instruction))
            elif isinstance(instruction, ReclaimLease):
                self._soon(self._reclaim(instruction))
            elif isinstance(instruction, CheckLeases):
                self._soon(self._check(instruction))
        except ValueError as exc:
            logger.debug("another application has ended meanwhile: %s", exc)
        except ray.exceptions.RayError as exc:
            logger.warning("cannot ask the cluster's other applications for CPUs: %s", reason_of(exc))

    def _soon(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("asking another application for CPUs failed", exc_info=task.exception())

    async def _demand(self, demand: DemandCpus) -> None:
        calls = self._peers.ask_all("demand", self._name, demand.units, demand.share, demand.lease_ids)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        most = max((answer for answer in answers if isinstance(answer, float)), default=0.0)
        self._handle(events.DemandAnswered(demand, most))

    async def _offer(self, offer: OfferLease) -> None:
        arguments = (offer.lease_id, self._name, offer.node, offer.cpus)
        if not await self._ask(offer.peer, False, "lease", *arguments):
            self._handle(events.LeaseRefused(offer.lease_id))

    async def _reclaim(self, lease: ReclaimLease) -> None:
        # A peer that has ended has no executors any more.
        if not await self._ask(lease.peer, False, "reclaim", lease.lease_id):
            self._handle(events.LeaseReturned(lease.lease_id))

    async def _check(self, leases: CheckLeases) -> None:
        standing = await self._ask(leases.giver, [], "confirm_leases", self._name, leases.share, leases.lease_ids)
        self._handle(events.LeasesChecked(leases.lease_ids, standing))

    async def _ask(self, peer: str, otherwise: Any, question: str, *args: Any) -> Any:
        """Return the answer of another dispatcher, or ``otherwise`` if it has ended."""
        try:
            return await self._peers.ask(peer, question, *args)
        except (ValueError, ray.exceptions.RayError):
            return otherwise

    # -- what other dispatchers say -----------------------------------------------------------------------------

    def demand(self, peer: str, units: list[float], share: float, lease_ids: list[str]) -> float:
        """Take another application's demand; return the most CPUs that it could ever get at once."""
        self._handle(events.PeerDemand(peer, units, share, lease_ids))
        return self._scheduler.view.most_lendable()

    def confirm(self, peer: str, share: float, lease_ids: list[str]) -> list[str]:
        """Return the leases of another application, which says which ones it knows of."""
        self._handle(events.LeasesConfirmed(peer, share, lease_ids))
        return self._scheduler.view.leases_of(peer)

    def lease(self, lease_id: str, giver: str, node: str, cpus: float) -> bool:
        """Take CPUs that another application leases; return whether there is still use for them."""
        self._handle(events.LeaseGranted(lease_id, giver, node, cpus))
        return self._scheduler.view.has_lease(lease_id)

    def reclaim(self, lease_id: str) -> bool:
        """Give CPUs back as soon as what runs on them has ended; return whether there is such a lease."""
        known = self._scheduler.view.has_lease(lease_id)
        self._handle(events.LeaseReclaimed(lease_id))
        return known

    def returned(self, lease_id: str) -> None:
        """Take CPUs back that were leased."""
        self._handle(events.LeaseReturned(lease_id))
