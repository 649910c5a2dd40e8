"""What an executor runs its messages with, and what kind of message each assigned one is."""

from __future__ import annotations

from raycelery.client.connection import Client
from raycelery.executor.batch import Assigned, Batch
from raycelery.executor.bookkeeping import Bookkeeping
from raycelery.executor.bridged import BridgedMessage
from raycelery.executor.direct import ChordMessage, DirectMessage
from raycelery.executor.eventer import Eventer
from raycelery.executor.runner import Message, Runs
from raycelery.protocol.messages import Assignment, ChordAssignment


class Assignments:
    """Makes messages of what the dispatcher assigns.

    Arguments:
        runner: runs them.
        client: the executor's connection.
        eventer: takes Celery's events.
    """

    def __init__(self, runner: Runs, client: Client, eventer: Eventer) -> None:
        self.runner = runner
        self._bookkeeping = Bookkeeping(runner.app, client, eventer)

    def message(self, batch: Batch, index: int, assigned: Assigned) -> Message:
        """Return what is to be done about the message of a batch that has this index."""
        if isinstance(assigned, Assignment):
            return DirectMessage(self._bookkeeping, assigned)
        if isinstance(assigned, ChordAssignment):
            return ChordMessage(self._bookkeeping, assigned)
        return BridgedMessage(batch.seq, index, assigned, batch.quick)
