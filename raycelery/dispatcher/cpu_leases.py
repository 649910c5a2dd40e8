"""Applications that share a cluster lend each other CPUs.

Ray knows nothing of applications: what one holds, it holds until its executors end. So a dispatcher whose executors
Ray has no room for asks the others. One that has CPUs *lends* them: it pauses executors, which keep their CPUs and
their processes, and the other runs *guests* meanwhile, executors for which Ray is asked for no CPUs. Nothing needs to
be started anew when CPUs change hands again, so they can go round: where there are fewer of them than applications that
want some, each has them for a slice of time. Who has least comes first, and of those who has waited longest.

Only CPUs are lent; what else guests need, Ray is asked for. Where memory, GPUs or other resources are what is missing,
executors are given up for good, as :meth:`raycelery.scheduler.scheduler.Scheduler.make_room` decides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import ray

from raycelery.dispatcher.leases_given import Lending
from raycelery.dispatcher.leases_taken import Borrowing
from raycelery.dispatcher.peers import Peers
from raycelery.reasons import reason_of

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher

logger = logging.getLogger(__name__)

#: Seconds between looks.
LOOK_SECONDS = 0.2


class Sharing:
    """A dispatcher's loans, in both directions.

    Arguments:
        dispatcher: whose.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.peers = Peers(dispatcher.name)
        self.borrowing = Borrowing(self)
        self.lending = Lending(self)
        self._tasks: set[asyncio.Task[None]] = set()

    async def forever(self) -> None:
        """Look, wait, and look again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            try:
                self.borrowing.look(now)
                self.lending.look(now)
            except ray.exceptions.RayError as exc:
                logger.warning("cannot ask the cluster's other applications for CPUs: %s", reason_of(exc))
            except Exception:  # whatever it is, the next look may go better
                logger.exception("looking for CPUs of other applications failed")
            self.dispatcher.turn_soon()

    def soon(self, doing: Coroutine[Any, Any, None]) -> None:
        """Have something done that waits for another application."""
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("asking another application for CPUs failed", exc_info=task.exception())

    def settle(self) -> None:
        """See what has become quiet; to be called after each turn of the scheduler."""
        self.borrowing.settle()
        self.lending.settle()

    def ended(self, executor: int) -> None:
        """Take note that an executor has ended, whatever part it has in loans."""
        self.borrowing.ended(executor)
        self.lending.ended(executor)
