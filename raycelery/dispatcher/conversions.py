"""The scheduler's messages, made of what was sent, and back."""

from __future__ import annotations

import json
import sys

from celery import states

from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import Completion, StoreResult
from raycelery.protocol.records import CompleteChord
from raycelery.scheduler.model import Lane, Message

#: Seconds that the failure of a message that was given up is kept.
GIVEN_UP_SECONDS = 86_400.0
_LOST = ("WorkerLostError", "billiard.exceptions")


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
