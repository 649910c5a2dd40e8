"""What an executor runs its messages with, and what kind of message each assigned one is."""

from __future__ import annotations

from collections.abc import Iterator

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

    def messages(self, batch: Batch) -> Iterator[Message]:
        """Yield a batch's messages, each when it is to run, until none is left in it."""
        while True:
            following = batch.begin_next()
            if following is None:
                return
            yield self._message(batch, *following)

    def _message(self, batch: Batch, index: int, assigned: Assigned) -> Message:
        if isinstance(assigned, Assignment):
            return DirectMessage(self._bookkeeping, assigned)
        if isinstance(assigned, ChordAssignment):
            return ChordMessage(self._bookkeeping, assigned)
        return BridgedMessage(batch.seq, index, assigned, batch.quick)
