"""The scheduler: a pure state machine. Events in, instructions out; no Ray, no clock, no thread, no I/O.

The caller tells what happened, with the time (:meth:`Scheduler.handle`), and takes the instructions
(:meth:`Scheduler.decide`) once it has told all that it knows: a frame holds up to 64 messages, and what is best to be
done about all of them is not the sum of what is best for each; it also costs a fraction. ``view`` is for reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raycelery.scheduler import events, phases
from raycelery.scheduler.instructions import Instruction
from raycelery.scheduler.model import Policy
from raycelery.scheduler.parts import Parts
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.validate import validate
from raycelery.scheduler.view import View


class Scheduler:
    """Queues, limits and lanes of one application.

    Arguments:
        policy: what may be tuned.
        debug: check every transition of messages and executors (all schedulers of the process do then), and, whenever
            instructions are taken, that all books agree. Slow.
        name: of the application; begins the ids of its leases.
    """

    def __init__(self, policy: Policy | None = None, debug: bool = False, name: str = "") -> None:
        self._parts = parts = Parts(policy or Policy(), name)
        self._turn = parts.turn
        self._debug = debug
        if debug:
            phases.enforce(True)
        self.view = View(parts)
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.AddLane: self._add_lane,
            events.Submit: self._submit,
            events.Revoke: lambda event: parts.revocation.revoke(event.ids, event.terminate),
            events.RevokeStamps: lambda event: parts.revocation.revoke_stamps(event.stamps, event.terminate),
            events.Purge: self._purge,
            events.Withdraw: self._withdraw,
            events.Terminate: self._terminate,
            events.SetLimit: lambda event: parts.limits.set_limit(event.name, event.maximum),
            events.SetRate: self._set_rate,
            events.Retire: lambda event: parts.preemption.retire(event.executor_ids),
            events.RetireOthers: lambda event: parts.preemption.retire_others(event.app),
            events.ExecutorConnected: parts.reports.connected,
            events.ExecutorReady: parts.reports.ready,
            events.ExecutorFailed: parts.reports.failed,
            events.ExecutorStopped: parts.reports.stopped,
            events.ExecutorLost: parts.reports.lost,
            events.Begun: parts.reports.begun,
            events.Finished: parts.reports.finished,
            events.Requeued: parts.reports.requeued,
            events.Recalled: parts.reports.recalled,
            events.Blocked: parts.reports.blocked,
            events.Unblocked: parts.reports.unblocked,
            events.WallClock: lambda event: parts.waiting.set_wall_clock(event.ahead),
            events.NodeChanged: parts.membership.changed,
            events.NodeRemoved: parts.membership.removed,
            events.NodeDraining: parts.draining.announced,
            events.AutoscalerFound: parts.growth.found,
            events.MakeRoom: lambda event: parts.preemption.make_room(event.amounts, event.share),
            events.RayDemand: lambda event: parts.preemption.make_room_for_ray(event),
            events.FreeCounted: parts.leases_taken.counted,
            events.DemandAnswered: parts.leases_taken.answered,
            events.LeaseGranted: parts.leases_taken.granted,
            events.LeaseReclaimed: parts.leases_taken.reclaimed,
            events.LeasesChecked: parts.leases_taken.checked,
            events.PeerDemand: parts.leases_given.demanded,
            events.LeasesConfirmed: parts.leases_given.confirmed,
            events.LeaseRefused: parts.leases_given.refused,
            events.LeaseReturned: parts.leases_given.returned,
        }

    def handle(self, event: events.Event, now: float) -> None:
        """Take note of what happened; :meth:`decide` returns what is to be done about it.

        Arguments:
            event: one of :mod:`raycelery.scheduler.events`.
            now: seconds since the epoch, by a clock that is never set; :class:`raycelery.scheduler.events.WallClock`
                tells of another.

        Raises:
            KeyError: a message was submitted whose lane is not known.
        """
        self._turn.now = now
        self._handlers[type(event)](event)

    def decide(self, now: float) -> list[Instruction]:
        """Return what is to be done about all that has happened up to ``now``, in order."""
        self._turn.now = now
        self._parts.timers.run(now)
        self._parts.assigning.run()
        self._parts.leases.settle()
        self._parts.packing.settle()
        if self._debug:
            self.validate()
        return self._turn.take()

    @property
    def wake_at(self) -> float | None:
        """When :meth:`decide` is to be called even if nothing happens, in seconds since the epoch."""
        return self._parts.timers.next

    def validate(self) -> None:
        """Check that all books agree with each other.

        Raises:
            AssertionError: they do not; it says which.
        """
        validate(self._parts)

    def _add_lane(self, event: events.AddLane) -> None:
        self._parts.lanes.add(event.lane)

    # -- messages -----------------------------------------------------------------------------------------------

    def _submit(self, event: events.Submit) -> None:
        parts, now, message = self._parts, self._turn.now, event.message
        message.lane = parts.lanes.known[message.lane].key
        # A journal may bring it back as it was.
        message.phase = MessagePhase.NEW
        parts.messages.add(message, now)
        if message.settle_reason is None and parts.revocation.is_revoked(message):
            message.settle_reason = "revoked"
        state = None if event.executor_id is None else parts.executors.all.get(event.executor_id)
        if state is not None and state.alive():
            parts.executors.give(state, [message])
        elif message.settle_reason is None and message.eta is not None and parts.waiting.due(message.eta) > now:
            parts.waiting.schedule(message, message.eta)
        else:
            parts.waiting.enqueue(message)

    def _purge(self, event: events.Purge) -> None:
        for message in self._parts.waiting.drain_queue(event.queue):
            if message.bridged:
                self._parts.waiting.enqueue(message)  # its broker has it
            else:
                self._parts.messages.done(message)

    def _withdraw(self, event: events.Withdraw) -> None:
        if event.message.phase in (MessagePhase.WAITING, MessagePhase.SCHEDULED):
            self._parts.waiting.withdraw(event.message)
            self._parts.messages.done(event.message)

    def _terminate(self, event: events.Terminate) -> None:
        message, executors = event.message, self._parts.executors
        state = executors.all.get(message.executor_id) if message.at_executor else None
        if state is not None and state.running() is message:
            executors.kill(state, message.seq, "terminated", event.reason)

    def _set_rate(self, event: events.SetRate) -> None:
        lifted = self._parts.limits.set_rate(event.task, event.per_second)
        if lifted is not None:
            self._parts.waiting.unpark_all(lifted)
