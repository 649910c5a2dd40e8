"""A dispatcher begins again: what its journal says goes back into store and scheduler; the journal is cut to that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from celery import states

from raycelery.dispatcher.journal import Ledger, restore
from raycelery.protocol import framing
from raycelery.scheduler.model import Lane, Message

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher

#: Questions that change something, and so are kept in the journal.
MUTATIONS = frozenset(
    {"forget", "set", "delete", "revoke", "revoke_stamps", "purge", "rate", "limit", "restore", "time_limit"}
)
#: Seconds that the failure of a message that was given up is kept.
GIVEN_UP_SECONDS = 86_400.0
_LOST = ("WorkerLostError", "billiard.exceptions")
RESTARTED = "the dispatcher was restarted while it ran"


def message_of(fields: tuple[Any, ...]) -> Message:
    """Return the scheduler's message for the fields of a submission."""
    task_id, task, queue, lane, payload, priority, eta, time_limit, stamps, _ = fields
    return Message(
        task_id, task, queue, lane, payload, priority=priority, eta=eta, time_limit=time_limit, stamps=stamps
    )


def fields_of(message: Message, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """Undo :func:`message_of`."""
    m = message
    return (m.id, m.task, m.queue, m.lane, m.payload, m.priority, m.eta, m.time_limit, m.stamps, keys)


def chord_message(completion: tuple[Any, ...], parts: list[bytes]) -> Message:
    """Return the message that has an executor call the body of a complete chord."""
    app, group, callback, request = completion
    payload = (group, callback, request, parts)
    return Message(f"chord:{group}", "celery.chord", "", f"settlement:{app}", payload, settle_reason="chord")


def given_up(message: Message) -> tuple[Any, ...]:
    """Return the store operation that tells callers of a message for which no executor could record the end."""
    kind = ("InfeasibleError", "raycelery.errors") if message.settle_reason == "infeasible" else _LOST
    error = {"exc_type": kind[0], "exc_message": [message.reason], "exc_module": kind[1]}
    meta = {"status": states.FAILURE, "result": error, "traceback": None, "children": [], "task_id": message.id}
    return ("meta", message.id, states.FAILURE, json.dumps(meta).encode(), (), GIVEN_UP_SECONDS, True)


def settlement_lane(app: str) -> Lane:
    """Return the lane that bookkeeping belongs to when no other has it."""
    return Lane(key=f"settlement:{app}", request={}, app=app)


def recover(dispatcher: Dispatcher) -> None:
    """Read the dispatcher's journal, if there is one, and take up what it says is not done."""
    ledger = Ledger()
    revocations: list[tuple[str, tuple[Any, ...]]] = []

    def apply(source: Any, frame: tuple[Any, ...]) -> None:
        now = time.time()
        kind = frame[0]
        if kind == "batch":
            _, number, definitions, messages, ops, reports = frame
            if number:
                dispatcher.frames[source] = number
            for definition in definitions:
                dispatcher.definitions.add(definition)
            for fields in messages:
                ledger.submitted(fields)
            for op in ops:
                complete = dispatcher.store_op(op, now)
                if complete is not None:
                    ledger.chord(complete)
            for report in reports:
                ledger.reported(report)
        elif kind == "given":
            ledger.given(frame[1], frame[2])
        elif kind == "live":
            ledger.live(frame[1], frame[2])
        elif kind == "chord":
            ledger.chord(frame[1])
        elif kind == "numbered":
            ledger.numbered(frame[1])
        elif kind == "call":
            _, _, method, args = frame
            if method in ("revoke", "revoke_stamps"):
                # Terminating was seen to, or the executor is gone anyway.
                revocations.append((method, (args[0], False)))
            elif method == "purge":
                ledger.purge(*args)
            else:
                getattr(dispatcher.rpc, method)(*args)

    if not restore(dispatcher.journal.path, apply):
        return
    now = time.time()
    running = ledger.running()
    for method, args in revocations:
        getattr(dispatcher.rpc, method)(*args)
    for seq, fields in sorted(ledger.messages.items()):
        message = message_of(fields)
        if seq in running:
            message.settle_reason, message.reason, message.deliveries = "lost", RESTARTED, 1
        dispatcher.take(message, fields[9], now)
    for complete in ledger.chords.values():
        dispatcher.take(complete, (), now)
    dispatcher.released()
    rewrite(dispatcher)


def rewrite(dispatcher: Dispatcher) -> None:
    """Write the journal anew, with nothing in it but what is still needed."""
    dispatcher.journal.rewrite(_snapshot(dispatcher))


def _snapshot(dispatcher: Dispatcher) -> Iterator[tuple[Any, bytes]]:
    yield "", framing.pack("batch", 0, dispatcher.definitions.all(), [], [], [])
    for source, number in dispatcher.frames.items():
        yield source, framing.pack("batch", number, [], [], [], [])
    for op in dispatcher.store.ops(time.time()):
        yield "", framing.pack("batch", 0, [], [], [op], [])
    given: dict[int, list[int]] = {}
    for message in dispatcher.scheduler.view.unfinished():
        if message.bridged:
            continue  # its broker has it
        if message.settle_reason == "chord":
            yield "", framing.pack("live", message.seq, message)
        else:
            yield "", framing.pack("live", message.seq, fields_of(message, dispatcher.keys.get(message.seq, ())))
            # A message that was lost with its executor counts as running until Celery has settled it.
            holder = message.executor_id if message.at_executor else -message.seq if message.settle_reason else 0
            if holder:
                given.setdefault(holder, []).append(message.seq)
    for executor, seqs in given.items():
        yield "", framing.pack("given", executor, sorted(seqs))
    yield "", framing.pack("numbered", dispatcher.scheduler.view.seq)
    for (kind, name), value in dispatcher.definitions.overridden.items():
        yield "", framing.pack("call", 0, kind, (name, *value) if kind == "time_limit" else (name, value))
    revoked, stamps = dispatcher.scheduler.view.revocations()
    if revoked:
        yield "", framing.pack("call", 0, "revoke", (revoked, False))
    if stamps:
        yield "", framing.pack("call", 0, "revoke_stamps", (stamps, False))
