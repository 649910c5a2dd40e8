"""What executors report, and what becomes of their messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raycelery.scheduler import events
from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.draining import Draining
from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.helpers import Helpers
from raycelery.scheduler.leases import Leases
from raycelery.scheduler.messages import Messages
from raycelery.scheduler.model import Message, SettleReason
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.revocation import Revocation
from raycelery.scheduler.runtimes import Runtimes
from raycelery.scheduler.settlement import Settlement
from raycelery.scheduler.turn import Turn
from raycelery.scheduler.waiting import Waiting

#: Tries to start an executor after which a lane is given up.
_TRIES = 2
#: The same where their processes were killed or crashed, which may have had a cause that passes.
_CRASHES = 6


def begun_of(given: Iterable[int], last_begun: int) -> Sequence[int]:
    """Return what an executor has begun of the messages that it was given and that nobody has heard the end of.

    Arguments:
        given: their numbers, in the order in which it runs them.
        last_begun: number of the message that it began last, or :data:`raycelery.scheduler.events.UNKNOWN`.
    """
    given = list(given)
    if last_begun == events.UNKNOWN:
        return given
    return given[: given.index(last_begun) + 1] if last_begun in given else []


class Reports:
    """Takes executors' reports; late and double ones are ignored.

    Arguments:
        turn: tells the policy; told what happened.
        messages: all.
        waiting: where messages go that are given back.
        executors: that report.
        helpers: told of executors that have ended.
        revocation: what was revoked meanwhile.
        runtimes: told how long tasks ran.
        settlement: told of messages whose bookkeeping failed too often.
        capacity: told of executors that did not start.
        leases: told of executors that have ended.
        draining: told of executors that have come up.
    """

    def __init__(
        self, turn: Turn, messages: Messages, waiting: Waiting, executors: Executors, helpers: Helpers,
        revocation: Revocation, runtimes: Runtimes, settlement: Settlement, capacity: Capacity,
        leases: Leases, draining: Draining,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._policy = turn.policy
        self._messages = messages
        self._waiting = waiting
        self._executors = executors
        self._helpers = helpers
        self._revocation = revocation
        self._runtimes = runtimes
        self._settlement = settlement
        self._capacity = capacity
        self._leases = leases
        self._draining = draining

    # -- of messages --------------------------------------------------------------------------------------------

    def begun(self, event: events.Begun) -> None:
        """See :class:`raycelery.scheduler.events.Begun`."""
        state = self._executors.all.get(event.executor_id)
        if state is not None:
            state.begun = True

    def finished(self, event: events.Finished) -> None:
        """See :class:`raycelery.scheduler.events.Finished`."""
        state = self._executors.all.get(event.executor_id)
        message = None if state is None else state.outstanding.get(event.seq)
        if state is None or message is None:
            return
        ran = message.phase is MessagePhase.ASSIGNED and not message.bridged
        self._take(state, message)
        if event.runtime is not None and ran:
            self._runtimes.note(message.task, event.runtime)
        self._messages.done(message)

    def requeued(self, event: events.Requeued) -> None:
        """See :class:`raycelery.scheduler.events.Requeued`."""
        state = self._executors.all.get(event.executor_id)
        message = None if state is None else state.outstanding.get(event.seq)
        if state is None or message is None:
            return
        ran = message.phase is MessagePhase.ASSIGNED
        self._take(state, message)
        if ran:
            # The task's own wish: it goes behind the others, as a new message.
            self._messages.renumber(message)
            message.rejections += 1
        elif message.settle_reason == "preempted":
            # It was not its own fault.
            message.deliveries -= 1
            message.settle_reason, message.reason = None, ""
        elif message.settle_reason in ("lost", "timeout"):
            if message.deliveries >= self._policy.max_deliveries:
                message.settle_reason = "undeliverable"
                message.reason = (
                    f"it was delivered {message.deliveries} times and its executor died each time "
                    f"(ray_max_deliveries={self._policy.max_deliveries}); the last time: {message.reason}"
                )
            else:
                message.settle_reason, message.reason = None, ""
        if message.settle_reason is None and self._revocation.is_revoked(message):
            message.settle_reason = "revoked"
        self._waiting.enqueue(message)

    def _take(self, state: ExecutorState, message: Message) -> None:
        if state.blocked and state.running() is message:
            # It cannot have ended while it waited.
            self._executors.unblock(state)
        state.begun = True
        self._executors.take_from(state, message.seq)
        self._executors.file(state)

    def recalled(self, event: events.Recalled) -> None:
        """See :class:`raycelery.scheduler.events.Recalled`."""
        state = self._executors.all.get(event.executor_id)
        if state is None:
            return
        state.recalling = False
        self._give_back(state, event.seqs)
        running = state.running()
        if running is not None and running.seq in state.doomed:
            self._executors.kill(state, running.seq, "terminated", f"task {running.id} was terminated")
        state.doomed.clear()
        self._executors.file(state)

    def _give_back(self, state: ExecutorState, seqs: Iterable[int]) -> None:
        for seq in seqs:
            message = self._executors.take_from(state, seq)
            if message is not None:
                self._waiting.enqueue(message)

    def blocked(self, event: events.Blocked) -> None:
        """See :class:`raycelery.scheduler.events.Blocked`."""
        state = self._executors.all.get(event.executor_id)
        running = None if state is None else state.running()
        if state is None or running is None or state.blocked:
            return
        self._executors.block(state, running)
        for task_id in event.awaited:
            self._waiting.promote(task_id)
        self._executors.file(state)
        if len(state.outstanding) > 1:
            self._executors.recall(state)

    def unblocked(self, event: events.Unblocked) -> None:
        """See :class:`raycelery.scheduler.events.Unblocked`."""
        state = self._executors.all.get(event.executor_id)
        if state is not None:
            self._executors.unblock(state)

    # -- of themselves ------------------------------------------------------------------------------------------

    def connected(self, event: events.ExecutorConnected) -> None:
        """See :class:`raycelery.scheduler.events.ExecutorConnected`."""
        self._executors.connected(event.executor_id)

    def ready(self, event: events.ExecutorReady) -> None:
        """See :class:`raycelery.scheduler.events.ExecutorReady`."""
        state = self._executors.all.get(event.executor_id)
        if state is not None and not state.ready:
            self._executors.ready(state, event.node)
            self._draining.settle(state)

    def failed(self, event: events.ExecutorFailed) -> None:
        """See :class:`raycelery.scheduler.events.ExecutorFailed`."""
        self._ended(event.executor_id, event.reason, event.crashed)

    def stopped(self, event: events.ExecutorStopped) -> None:
        """See :class:`raycelery.scheduler.events.ExecutorStopped`."""
        self._ended(event.executor_id, None)

    def lost(self, event: events.ExecutorLost) -> None:
        """See :class:`raycelery.scheduler.events.ExecutorLost`."""
        self._ended(event.executor_id, event.reason, crashed=True, last_begun=event.last_begun)

    def _ended(
        self, executor_id: int, reason: str | None, crashed: bool = False, last_begun: int | None = None
    ) -> None:
        """Take note that an executor has ended.

        Arguments:
            reason: why it died; None where it ended in order.
            crashed: its process was killed or crashed.
            last_begun: see :class:`raycelery.scheduler.events.ExecutorLost`.
        """
        taken_away = self._draining.concerns(executor_id)
        state = self._executors.remove(executor_id)
        if state is None:
            return
        self._turn.note("ended", executor_id, reason)
        self._leases.ended(executor_id)
        if not state.ready:
            if state.killed is None:
                tries = _CRASHES if crashed else _TRIES
                self._capacity.did_not_start(state.lane, state.attempt, reason or "it ended before it was ready", tries)
        elif reason is not None:
            self._settle_begun(state, reason, last_begun, "preempted" if taken_away else "lost")
        self._give_back(state, list(state.outstanding))
        self._helpers.look_again(state.lane.lane.app)

    def _settle_begun(self, state: ExecutorState, reason: str, last_begun: int | None, why: SettleReason) -> None:
        begun = state.begun
        if last_begun is not None:
            known = begun_of(state.outstanding, last_begun)
            begun = bool(known)
            # Those before the last one have ended, or it would not have begun; nobody will hear how.
            for seq in known[1:]:
                self._settle(state, state.outstanding[seq], reason, True)
        running = state.running()
        if running is not None:
            self._settle(state, running, reason, begun, why)

    def _settle(
        self, state: ExecutorState, running: Message, reason: str, begun: bool, why: SettleReason = "lost"
    ) -> None:
        settling = running.phase is MessagePhase.SETTLING
        self._executors.take_from(state, running.seq)
        if settling:
            running.settles += 1
            if running.settles > self._policy.max_deliveries:
                text = f"executors died while they recorded it as {running.settle_reason}: {reason}"
                self._settlement.drop(running, text)
                return
        else:
            running.deliveries += 1
            if state.killed is not None and state.killed[0] == running.seq:
                running.settle_reason, running.reason = state.killed[1:]
            elif begun or running.deliveries >= self._policy.max_deliveries:
                running.settle_reason, running.reason = why, reason
            # Else it was dead already when it was given this, which can run elsewhere.
        self._waiting.enqueue(running)
