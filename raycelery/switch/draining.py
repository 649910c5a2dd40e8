"""Takes what a broker still holds to Ray: each message is acknowledged to the broker once the dispatcher has it.

A message that was delivered before may have been taken by a drain that was killed before it acknowledged it. So the
dispatcher is told of each message that is taken along with the message itself, in one frame of the journal, and what is
delivered again is looked up there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raycelery.errors import DispatcherUnreachable, JournalFull, QueueFull, RayCeleryError
from raycelery.protocol import questions
from raycelery.protocol.operations import StoreValue
from raycelery.switch import broker, taking
from raycelery.switch.persisting import PAUSE_SECONDS, persist

logger = logging.getLogger(__name__)

#: Messages that are taken at a time.
BATCH = 50
#: Seconds for which it is known which messages were taken.
KNOWN_SECONDS = 86_400.0
#: Seconds that the dispatcher may take to write messages down.
SAFE_SECONDS = 60.0


@dataclass
class Counts:
    """What a drain has done.

    Arguments:
        moved: messages that are on Ray now, by task.
        known: messages that were there already.
        kept: messages that stay in the broker, by the reason.
        taken_over: messages of consumers that are gone.
        held: unacknowledged messages that are left alone, as workers are connected.
        remaining: what the broker holds at the end.
    """

    moved: Counter[str] = field(default_factory=Counter)
    known: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    taken_over: int = 0
    held: int = 0
    remaining: int = 0


class Drain:
    """Takes the messages of some queues to Ray.

    Arguments:
        app: the application, in direct mode.
        queues: their names.
        say: is told what happens, in words: what is waited for.
        progress: is called after each batch, with the counts.
        take_unacked: whether messages of consumers that are gone are taken where it cannot be told whether there are
            workers, or where there are.
    """

    def __init__(
        self,
        app: Any,
        queues: Iterable[str],
        say: Callable[[str], None],
        progress: Callable[[Counts], None],
        *,
        take_unacked: bool = False,
    ) -> None:
        self._app = app
        self._queues = list(queues)
        self._say = say
        self._progress = progress
        self._take_unacked = take_unacked
        self.counts = Counts()
        #: Messages that cannot be taken: they are not acknowledged, so that each is looked at once, and given back at
        #: the end.
        self._kept: list[Any] = []

    def run(self, *, until_empty: bool) -> Counts:
        """Take messages until none is left, or until interrupted; waits for a broker or cluster that is gone.

        Arguments:
            until_empty: end once nothing more can be taken.
        """
        return persist(self._app, lambda found: self._once(found, until_empty), self._say)

    def _once(self, found: broker.Broker, until_empty: bool) -> Counts:
        self._kept, self.counts.kept = [], Counter()
        try:
            return self._run(found, until_empty)
        finally:
            self._give_back(found)

    def _run(self, found: broker.Broker, until_empty: bool) -> Counts:
        while True:
            self._take_over(found)
            moved = sum([self._pass(found, queue) for queue in [*self._queues, *found.waiting_rooms()]])
            if moved:
                continue
            if until_empty:
                for place, count in found.aside.items():
                    self.counts.kept[f"it is no message of Celery's: it is in the list {place} now"] = count
                self.counts.remaining = sum(one.all for one in found.left(self._queues))
                self.counts.remaining += found.aside.total() + (0 if found.keeps_unacked else len(self._kept))
                return self.counts
            time.sleep(PAUSE_SECONDS)

    def _give_back(self, found: broker.Broker) -> None:
        kept, self._kept = self._kept, []
        try:
            found.give_back(kept)
        except found.errors as exc:
            logger.info("%d messages that stay in the broker are given back by it: %s", len(kept), exc)

    def _take_over(self, found: broker.Broker) -> None:
        """Have messages of consumers that are gone come again, where that is known to be so."""
        if not found.keeps_unacked:
            return
        workers = found.consumers()
        if self._take_unacked or workers == 0:
            self.counts.taken_over += found.take_over(self._queues, self._kept)
            self.counts.held = 0
            return
        self.counts.held = sum(one.unacked for one in found.left(self._queues)) - len(self._kept)

    def _pass(self, found: broker.Broker, queue: str) -> int:
        """Take what is in one queue; return how many messages were acknowledged."""
        done = 0
        while batch := found.fetch(queue, BATCH):
            try:
                done += self._batch(found, batch, queue)
            except BaseException:
                self._kept += batch  # given back; what was taken is known when it comes again
                raise
            self._progress(self.counts)
        return done

    def _batch(self, found: broker.Broker, batch: list[Any], queue: str) -> int:
        fit: list[tuple[Any, taking.Taken]] = []
        for message in batch:
            try:
                target = self._target(message, queue)
                taken = taking.read(self._app, message, target)
            except taking.Unfit as exc:
                self.counts.kept[str(exc)] += 1
                self._kept.append(message)
            else:
                fit.append((message, taken))
        client = self._app.client
        moved: Counter[str] = Counter()
        done, known = [], 0
        with client.together():
            for message, taken in fit:
                if taken.redelivered and client.call(questions.GetValue(taken.identity)) is not None:
                    known += 1
                else:
                    try:
                        taken.publish(self._app)
                    except (DispatcherUnreachable, QueueFull, JournalFull):
                        raise
                    except RayCeleryError as exc:
                        self.counts.kept[f"{taken.task} cannot be called on Ray: {exc}"] += 1
                        self._kept.append(message)
                        continue
                    client.store(StoreValue(taken.identity, b"1", KNOWN_SECONDS), now=False)
                    moved[taken.task] += 1
                done.append(message)
        client.hand_over(SAFE_SECONDS)
        found.acknowledge(done)
        self.counts.moved += moved
        self.counts.known += known
        return len(done)

    def _target(self, message: Any, queue: str) -> str:
        """Return the queue of a message: of one of delayed delivery, the one that it is bound for."""
        bound = broker.destination(message)
        if bound is None:
            return queue
        for name, one in self._app.amqp.queues.items():
            if name in self._queues and bound[1] in (one.routing_key, name):
                return str(name)
        if bound[1] in self._queues:
            return bound[1]
        raise taking.Unfit(f"it waits for its time and is bound for {bound[1]!r}, which is none of these queues")
