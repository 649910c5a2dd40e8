"""Applications that share a cluster lease each other CPUs.

Ray knows nothing of applications: what one holds, it holds until its executors end. So an application whose executors
Ray has no room for demands CPUs of its *peers*, the others in the cluster. One that has CPUs *leases* them: it pauses
executors, which keep their CPUs and their processes, and the other runs *leased* executors meanwhile, for which Ray is
asked for no CPUs. Nothing needs to be started anew when CPUs change hands again, so they can go round: where there are
fewer of them than applications that want some, each has them for a slice of time, after which they are *reclaimed*, and
*returned*. Who has least comes first, and of those who has waited longest.

Only CPUs are leased; what else leased executors need, Ray is asked for. Where memory, GPUs or other resources are what
is missing, executors end for good, see :meth:`raycelery.scheduler.preemption.Preemption.make_room`.
"""

from __future__ import annotations

from raycelery.scheduler.executors import Executors
from raycelery.scheduler.leases_given import LeasesGiven
from raycelery.scheduler.leases_taken import PATIENCE_SECONDS, LeasesTaken
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn

#: Seconds between looks, while there is anything to be looked at.
LOOK_SECONDS = 0.2


class Leases:
    """An application's leases, in both directions.

    Arguments:
        turn: the time.
        timers: for the next look.
        executors: those that Ray has not started yet are looked at.
        given: leases to others.
        taken: leases of others.
    """

    def __init__(
        self, turn: Turn, timers: Timers, executors: Executors, given: LeasesGiven, taken: LeasesTaken
    ) -> None:
        self._turn = turn
        self._timers = timers
        self._executors = executors
        self.given = given
        self.taken = taken
        self._look = Kind(self._on_look)
        #: Whether a timer is set for the next look.
        self._armed = False

    def settle(self) -> None:
        """See what has become quiet, and whether to look again; to be called once all else is decided."""
        if self.taken.taken:
            self.taken.settle()
        self.given.settle()
        if self._armed:
            return
        now = self._turn.now
        if self.taken.active or self.given.active:
            at = now + LOOK_SECONDS
        elif self._executors.unconnected:
            first = self._executors.all[next(iter(self._executors.unconnected))]
            at = max(now + LOOK_SECONDS, first.started_at + PATIENCE_SECONDS)
        else:
            return
        self._armed = True
        self._timers.add(at, self._look, None)

    def _on_look(self, subject: None, token: None) -> None:
        self._armed = False
        self.taken.look()
        self.given.look()

    def ended(self, executor_id: int) -> None:
        """Take note that an executor has ended, whatever part it has in leases."""
        self.taken.ended(executor_id)
        self.given.ended(executor_id)
