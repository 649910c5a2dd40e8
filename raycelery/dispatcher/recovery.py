"""A dispatcher begins again: what its journal says goes back into store and scheduler; the journal is cut to that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from raycelery.dispatcher.conversions import given_up, message_of, message_of_chord, submission_of
from raycelery.dispatcher.ledger import Ledger
from raycelery.protocol import framing, questions
from raycelery.protocol.asking import Question
from raycelery.protocol.frames import Ask, Changes
from raycelery.protocol.records import CompleteChord, Given, LiveMessage, Numbered, Record

if TYPE_CHECKING:
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.journal import Journal
    from raycelery.scheduler.model import Message

logger = logging.getLogger(__name__)

RESTARTED = "the dispatcher was restarted while it ran"


def recover(core: Core, journal: Journal, answer: Callable[[Question[Any]], Any]) -> None:
    """Read a journal, if there is one, and take up what it says is not done.

    Arguments:
        core: is as before afterwards.
        journal: is rewritten.
        answer: does what a question of the journal asks for.
    """
    ledger = Ledger()
    revocations: list[questions.Revoke | questions.RevokeStamps] = []

    def apply(source: str, seq: int, record: Record) -> None:
        ledger.at(seq)
        match record:
            case Changes():
                _changed(core, ledger, source, record)
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
                revocations.append(msgspec.structs.replace(asked, terminate=False))
            case Ask(_, questions.Purge(queue)):
                ledger.purge(queue)
            case Ask(_, asked):
                answer(asked)

    if not journal.restore(apply):
        return
    now = time.time()
    running = ledger.running()
    for revocation in revocations:
        answer(revocation)
    for seq, submission in sorted(ledger.messages.items()):
        message = message_of(submission)
        if seq in running:
            message.settle_reason, message.reason, message.deliveries = "lost", RESTARTED, 1
        _take(core, message, submission.keys, now)
    for complete in ledger.chords.values():
        _take(core, message_of_chord(complete), (), now)
    core.sweep()
    rewrite(core, journal)


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
        complete = core.write(operation, time.time())
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
    yield "", Changes(definitions=core.definitions.all())
    for source, frame_id in core.frame_ids.items():
        yield source, Changes(frame_id)
    for operation in core.store.ops(time.time()):
        yield "", Changes(operations=[operation])
    given: dict[int, list[int]] = {}
    for message in core.scheduler.view.unfinished():
        if message.bridged:
            continue  # its broker has it
        if message.settle_reason == "chord":
            yield "", msgspec.structs.replace(message.payload, seq=message.seq)
        else:
            yield "", LiveMessage(message.seq, submission_of(message, core.keys.get(message.seq, ())))
            # A message that was lost with its executor counts as running until Celery has settled it.
            holder = message.executor_id if message.at_executor else -message.seq if message.settle_reason else 0
            if holder:
                given.setdefault(holder, []).append(message.seq)
    for executor_id, seqs in given.items():
        yield "", Given(executor_id, sorted(seqs))
    yield "", Numbered(core.scheduler.view.seq)
    for change in core.definitions.changes():
        yield "", Ask(0, change)
    revoked, stamps = core.scheduler.view.revocations()
    if revoked:
        yield "", Ask(0, questions.Revoke(revoked, False))
    if stamps:
        yield "", Ask(0, questions.RevokeStamps(stamps, False))
