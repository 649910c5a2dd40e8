"""What executors report of the messages that they were given, and of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raycelery.protocol.reports import (
    BatchReport,
    Begun,
    Blocked,
    Bye,
    Done,
    Outdated,
    Ready,
    Recalled,
    Report,
    Requeue,
)
from raycelery.scheduler import events

if TYPE_CHECKING:
    from raycelery.dispatcher.bridge_jobs import BridgeJobs
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.executor_manager import ExecutorManager
    from raycelery.dispatcher.outcomes import Outcomes


class Reports:
    """Hands executors' reports on.

    Arguments:
        core: whose scheduler hears of nearly all.
        outcomes: counts what has ended.
        bridge_jobs: hears of bridges' messages.
        executors: told of those that end.
    """

    def __init__(self, core: Core, outcomes: Outcomes, bridge_jobs: BridgeJobs, executors: ExecutorManager) -> None:
        self._core = core
        self._scheduler = core.scheduler
        self._outcomes = outcomes
        self._bridge_jobs = bridge_jobs
        self._executors = executors

    def take(self, conn: Connection, report: Report, now: float) -> None:
        """Take a report; what comes from other processes than executors is ignored."""
        executor, scheduler = conn.executor_id, self._scheduler
        if executor is None:
            return
        match report:
            case Done(seq, seconds):
                message = scheduler.view.given(executor, seq)
                if message is not None:
                    scheduler.handle(events.Finished(executor, seq, seconds), now)
                    if message.bridged:
                        self._bridge_jobs.finished(message)
                    elif message.settle_reason != "chord":
                        self._outcomes.note(message, report.outcome, seconds, conn.info.node, now, report.error)
                self._core.release(seq)
            case Begun():
                scheduler.handle(events.Begun(executor), now)
            case BatchReport(seq, index, event):
                self._bridge_jobs.on_report(conn.info.node, seq, index, event)
            case Requeue(seq):
                scheduler.handle(events.Requeued(executor, seq), now)
            case Ready(node):
                scheduler.handle(events.ExecutorReady(executor, node), now)
            case Recalled(seqs):
                scheduler.handle(events.Recalled(executor, seqs), now)
            case Outdated():
                scheduler.handle(events.Retire([executor]), now)
            case Blocked(True):
                scheduler.handle(events.Blocked(executor, conn.watching), now)
            case Blocked():
                scheduler.handle(events.Unblocked(executor), now)
            case Bye():
                self._executors.ended(executor, None)
