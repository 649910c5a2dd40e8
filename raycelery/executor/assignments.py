"""What an executor runs its messages with, and what kind of message each assigned one is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raycelery.client.connection import Client
from raycelery.executor.batch import Batch
from raycelery.executor.bookkeeping import Bookkeeping
from raycelery.executor.bridged import BridgedMessage
from raycelery.executor.direct import ChordMessage, DirectMessage
from raycelery.executor.eventer import Eventer
from raycelery.executor.runner import Message, Runs


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

    def _message(self, batch: Batch, index: int, payload: Any) -> Message:
        if batch.bridged:
            return BridgedMessage(batch.seq, index, payload, batch.quick)
        if batch.settle_reason == "chord":
            return ChordMessage(self._bookkeeping, batch.seq, payload)
        return DirectMessage(self._bookkeeping, batch.seq, payload, batch.settle_reason, batch.reason, batch.deliveries)
