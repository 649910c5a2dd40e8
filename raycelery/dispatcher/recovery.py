"""A dispatcher begins again: what its journal says goes back into store and scheduler; the journal is cut to that."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from raycelery.dispatcher import steady
from raycelery.dispatcher.begun import last_begun, remove
from raycelery.dispatcher.conversions import given_up, message_of, message_of_chord, submission_of
from raycelery.dispatcher.ledger import Ledger, lost
from raycelery.dispatcher.turns import UNWRITTEN_SECONDS
from raycelery.protocol import framing, questions
from raycelery.protocol.asking import Question
from raycelery.protocol.codec import encode
from raycelery.protocol.frames import Ask, Changes
from raycelery.protocol.records import Came, CompleteChord, Ended, Epoch, Given, LiveMessage, Lost, Numbered, Record
from raycelery.scheduler.events import UNKNOWN
from raycelery.scheduler.reports import begun_of

if TYPE_CHECKING:
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.journal import Journal
    from raycelery.scheduler.model import Message

logger = logging.getLogger(__name__)

RESTARTED = "the dispatcher was restarted while it ran"


class Recovery:
    """Reads a journal, if there is one, and takes up what it says is not done.

    Arguments:
        core: has its results and definitions again at once, its messages after :meth:`finish`.
        journal: is rewritten then.
        answer: does what a question of the journal asks for.
    """

    def __init__(self, core: Core, journal: Journal, answer: Callable[[Question[Any]], Any]) -> None:
        self._core = core
        self._journal = journal
        self._answer = answer
        self._ledger = Ledger()
        self._revocations: list[questions.Revoke | questions.RevokeStamps] = []
        self._found = journal.restore(self._apply)
        if not core.epoch or journal.damaged:
            core.epoch = uuid.uuid4().hex
            journal.append("", framing.pack(Epoch(core.epoch)))

    def _apply(self, source: str, seq: int, record: Record) -> None:
        ledger = self._ledger
        ledger.at(seq)
        match record:
            case Changes():
                _changed(self._core, ledger, source, record)
            case Epoch(epoch):
                self._core.epoch = epoch
            case Came():
                ledger.came(record)
            case Lost():
                ledger.lost[record.seq] = record
            case Ended(executor_id):
                ledger.ended(executor_id)
            case Given(executor_id, seqs):
                ledger.given(executor_id, seqs)
            case LiveMessage(seq, submission):
                ledger.live(seq, submission)
            case CompleteChord(seq):
                ledger.live(seq, record)
            case Numbered(seq):
                ledger.numbered(seq)
            case Ask(_, questions.Revoke() | questions.RevokeStamps() as asked):
                # Terminating was seen to, or the executor is gone anyway.
                self._revocations.append(msgspec.structs.replace(asked, terminate=False))
            case Ask(_, questions.Purge(queue)):
                ledger.purge(queue)
            case Ask(_, questions.Withdraw(ids)):
                self._withdraw(ids)
            case Ask(_, asked):
                self._answer(asked)

    def _withdraw(self, ids: list[str]) -> None:
        store = self._core.store
        if store.get(questions.WITHDRAWN) is not None:
            return
        revoked = {one for asked in self._revocations if isinstance(asked, questions.Revoke) for one in asked.ids}
        kept = self._ledger.withdraw(one for one in ids if one not in revoked)
        if kept:
            store.set(questions.WITHDRAWN, encode(kept), None, steady.now())

    async def finish(self) -> None:
        """Hand what is not done to the scheduler, once it is known what executors had begun of it; cut the journal."""
        if not self._found:
            return
        core, ledger = self._core, self._ledger
        given = ledger.given_out()
        places = [place for place, _ in given if place is not None]
        known = await last_begun(places)
        self._found = False
        for place, seqs in given:
            for seq in begun_of(seqs, UNKNOWN if place is None else known[place]):
                ledger.lost.setdefault(seq, Lost(seq, "lost", RESTARTED, ledger.deliveries.get(seq, 0) + 1))
        now = steady.now()
        for revocation in self._revocations:
            self._answer(revocation)
        for seq, submission in sorted(ledger.messages.items()):
            message = message_of(submission)
            had_begun = ledger.lost.get(seq)
            if had_begun is None:
                message.deliveries = ledger.deliveries.get(seq, 0)
            else:
                message.settle_reason, message.reason = had_begun.settle_reason, had_begun.reason
                message.deliveries = had_begun.deliveries
            _take(core, message, submission.keys, now)
        for complete in ledger.chords.values():
            _take(core, message_of_chord(complete), (), now)
        core.sweep()
        # Nothing is added to the old file, which may end in the middle of a record.
        while True:
            try:
                rewrite(core, self._journal)
                break
            except OSError as exc:
                logger.error("the journal cannot be written anew (%s): the dispatcher goes on when it can", exc)
                await asyncio.sleep(UNWRITTEN_SECONDS)
        for place in places:
            remove(place)


def _take(core: Core, message: Message, keys: tuple[str, ...], now: float) -> None:
    """Take a message up again; one whose lane was in a part of the journal that is damaged fails."""
    try:
        core.take(message, keys, now)
    except KeyError:
        message.reason = "the dispatcher was restarted, and the part of its journal that says where it runs is damaged"
        logger.error("message %s of %s was given up: %s", message.id, message.task, message.reason)
        if message.settle_reason != "chord":
            core.write(given_up(message), now)


def _changed(core: Core, ledger: Ledger, source: str, changes: Changes) -> None:
    if changes.frame_id:
        core.frame_ids[source] = changes.frame_id
    for definition in changes.definitions:
        core.definitions.add(definition)
    for submission in changes.submissions:
        ledger.submitted(submission)
    for operation in changes.operations:
        complete = core.write(operation, steady.now())
        if complete is not None:
            ledger.chord(complete.payload)
    for report in changes.reports:
        ledger.reported(report)


def rewrite(core: Core, journal: Journal) -> None:
    """Write the journal anew, with nothing in it but what is still needed."""
    journal.rewrite(_snapshot(core))


def _snapshot(core: Core) -> Iterator[tuple[str, bytes]]:
    for source, record in _records(core):
        yield source, framing.pack(record)


def _records(core: Core) -> Iterator[tuple[str, Record]]:
    yield "", Epoch(core.epoch)
    yield "", Changes(definitions=core.definitions.all())
    for source, frame_id in core.frame_ids.items():
        yield source, Changes(frame_id)
    for operation in core.store.ops(steady.now()):
        yield "", Changes(operations=[operation])
    given: dict[int, list[int]] = {}
    for message in core.scheduler.view.unfinished():
        if message.bridged:
            continue  # its broker has it
        if message.settle_reason == "chord":
            yield "", msgspec.structs.replace(message.payload, seq=message.seq)
        else:
            yield "", LiveMessage(message.seq, submission_of(message, core.keys.get(message.seq, ())))
            had_begun = lost(message)
            if had_begun is not None:
                yield "", had_begun
            if message.at_executor:
                given.setdefault(message.executor_id, []).append(message.seq)
    for came in core.came.values():
        yield "", came
    for executor_id, seqs in given.items():
        yield "", Given(executor_id, seqs)
    yield "", Numbered(core.scheduler.view.seq)
    for change in core.definitions.changes():
        yield "", Ask(0, change)
    revoked, stamps = core.scheduler.view.revocations()
    if revoked:
        yield "", Ask(0, questions.Revoke(revoked, False))
    if stamps:
        yield "", Ask(0, questions.RevokeStamps(stamps, False))
