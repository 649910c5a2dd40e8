"""A dispatcher begins again: what its journal says goes back into store and scheduler; the journal is cut to that."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
from celery import states

from raycelery.dispatcher.ledger import Ledger
from raycelery.protocol import framing, questions
from raycelery.protocol.frames import Ask, Changes
from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import Completion, StoreResult
from raycelery.protocol.records import CompleteChord, Given, LiveMessage, Numbered, Record
from raycelery.scheduler.model import Lane, Message

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher

logger = logging.getLogger(__name__)

#: Seconds that the failure of a message that was given up is kept.
GIVEN_UP_SECONDS = 86_400.0
_LOST = ("WorkerLostError", "billiard.exceptions")
RESTARTED = "the dispatcher was restarted while it ran"


def message_of(submission: Submission) -> Message:
    """Return the scheduler's message for a submission."""
    one = submission
    # There are few of these names, and many messages.
    task, queue, lane = sys.intern(one.task), sys.intern(one.queue), sys.intern(one.lane)
    return Message(
        one.task_id,
        task,
        queue,
        lane,
        one.payload,
        priority=one.priority,
        eta=one.eta,
        time_limit=one.time_limit,
        stamps=one.stamps,
    )


def submission_of(message: Message, keys: tuple[str, ...]) -> Submission:
    """Undo :func:`message_of`."""
    m = message
    stamps = None if m.stamps is None else dict(m.stamps)
    return Submission(m.id, m.task, m.queue, m.lane, m.payload, m.priority, m.eta, m.time_limit, stamps, keys)


def chord_message(completion: Completion, parts: list[bytes]) -> Message:
    """Return the message that has an executor call the body of a complete chord."""
    return message_of_chord(CompleteChord(0, completion, parts))


def message_of_chord(complete: CompleteChord) -> Message:
    """Return the same for a chord of the journal."""
    completion = complete.completion
    return Message(
        f"chord:{completion.group}", "celery.chord", "", f"settlement:{completion.app}", complete, settle_reason="chord"
    )


def given_up(message: Message) -> StoreResult:
    """Return the store operation that tells callers of a message for which no executor could record the end."""
    kind = ("InfeasibleError", "raycelery.errors") if message.settle_reason == "infeasible" else _LOST
    error = {"exc_type": kind[0], "exc_message": [message.reason], "exc_module": kind[1]}
    meta = {"status": states.FAILURE, "result": error, "traceback": None, "children": [], "task_id": message.id}
    return StoreResult(message.id, states.FAILURE, json.dumps(meta).encode(), (), GIVEN_UP_SECONDS, True)


def settlement_lane(app: str) -> Lane:
    """Return the lane that bookkeeping belongs to when no other has it."""
    return Lane(key=f"settlement:{app}", request={}, app=app)


def recover(dispatcher: Dispatcher) -> None:
    """Read the dispatcher's journal, if there is one, and take up what it says is not done."""
    ledger = Ledger()
    revocations: list[questions.Revoke | questions.RevokeStamps] = []

    def apply(source: str, seq: int, record: Record) -> None:
        ledger.at(seq)
        match record:
            case Changes():
                _changed(dispatcher, ledger, source, record)
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
                dispatcher.rpc.answer(asked)

    if not dispatcher.journal.restore(apply):
        return
    now = time.time()
    running = ledger.running()
    for revocation in revocations:
        dispatcher.rpc.answer(revocation)
    for seq, submission in sorted(ledger.messages.items()):
        message = message_of(submission)
        if seq in running:
            message.settle_reason, message.reason, message.deliveries = "lost", RESTARTED, 1
        _take(dispatcher, message, submission.keys, now)
    for complete in ledger.chords.values():
        _take(dispatcher, message_of_chord(complete), (), now)
    dispatcher.released()
    rewrite(dispatcher)


def _take(dispatcher: Dispatcher, message: Message, keys: tuple[str, ...], now: float) -> None:
    """Take a message up again; one whose lane was in a part of the journal that is damaged fails."""
    try:
        dispatcher.take(message, keys, now)
    except KeyError:
        message.reason = "the dispatcher was restarted, and the part of its journal that says where it runs is damaged"
        logger.error("message %s of %s was given up: %s", message.id, message.task, message.reason)
        if message.settle_reason != "chord":
            dispatcher.store_op(given_up(message), now)


def _changed(dispatcher: Dispatcher, ledger: Ledger, source: str, changes: Changes) -> None:
    if changes.frame_id:
        dispatcher.frame_ids[source] = changes.frame_id
    for definition in changes.definitions:
        dispatcher.definitions.add(definition)
    for submission in changes.submissions:
        ledger.submitted(submission)
    for operation in changes.operations:
        complete = dispatcher.store_op(operation, time.time())
        if complete is not None:
            ledger.chord(complete.payload)
    for report in changes.reports:
        ledger.reported(report)


def rewrite(dispatcher: Dispatcher) -> None:
    """Write the journal anew, with nothing in it but what is still needed."""
    dispatcher.journal.rewrite(_snapshot(dispatcher))


def _snapshot(dispatcher: Dispatcher) -> Iterator[tuple[str, bytes]]:
    for source, record in _records(dispatcher):
        yield source, framing.pack(record)


def _records(dispatcher: Dispatcher) -> Iterator[tuple[str, Record]]:
    yield "", Changes(definitions=dispatcher.definitions.all())
    for source, frame_id in dispatcher.frame_ids.items():
        yield source, Changes(frame_id)
    for operation in dispatcher.store.ops(time.time()):
        yield "", Changes(operations=[operation])
    given: dict[int, list[int]] = {}
    for message in dispatcher.scheduler.view.unfinished():
        if message.bridged:
            continue  # its broker has it
        if message.settle_reason == "chord":
            yield "", msgspec.structs.replace(message.payload, seq=message.seq)
        else:
            yield "", LiveMessage(message.seq, submission_of(message, dispatcher.keys.get(message.seq, ())))
            # A message that was lost with its executor counts as running until Celery has settled it.
            holder = message.executor_id if message.at_executor else -message.seq if message.settle_reason else 0
            if holder:
                given.setdefault(holder, []).append(message.seq)
    for executor_id, seqs in given.items():
        yield "", Given(executor_id, sorted(seqs))
    yield "", Numbered(dispatcher.scheduler.view.seq)
    for change in dispatcher.definitions.changes():
        yield "", Ask(0, change)
    revoked, stamps = dispatcher.scheduler.view.revocations()
    if revoked:
        yield "", Ask(0, questions.Revoke(revoked, False))
    if stamps:
        yield "", Ask(0, questions.RevokeStamps(stamps, False))
