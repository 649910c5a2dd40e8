"""What processes write to the dispatcher's store: results, parts of chords, and what goes along with them in order."""

from __future__ import annotations

from typing import Any

import msgspec

from raycelery.protocol.codec import Decoder, Plain, Tagged, encode


class StoreResult(Tagged, frozen=True):
    """The state of a task. Executor or client -> dispatcher.

    Arguments:
        task_id: Celery's.
        state: Celery's, or one of the task's own.
        payload: the encoded meta, for whoever reads the result.
        keys: of large values that it refers to.
        expires: seconds that it is kept; None: for ever.
        final: whether the task has ended, so that those who wait are told.
    """

    task_id: str
    state: str
    payload: bytes
    keys: tuple[str, ...]
    expires: float | None
    final: bool


class Completion(Plain, frozen=True):
    """What is done when the last part of a chord is there.

    Arguments:
        app: key of the application's definition.
        group: id of the header.
        callback: the pickled signature of the body.
        origin: what the body inherits of the task that was the last part, pickled.
    """

    app: str
    group: str
    callback: bytes
    origin: bytes


class ChordPart(Tagged, frozen=True):
    """What a task of a chord's header left. Executor -> dispatcher.

    Arguments:
        group: id of the header.
        task_id: of the task.
        index: its place in the header; infinite for what was added while the chord ran.
        payload: the encoded part, for the chord's body.
        size: parts of the chord, where the task knows.
        expires: seconds that parts are kept; None: for ever.
        completion: what is to be done if it is the last.
        keys: of large values that it refers to.
        question_id: number by which is answered whether it was the last: with a :class:`LastPart`, or None; 0: that is
            not asked.
    """

    group: str
    task_id: str
    index: float
    payload: bytes
    size: int | None
    expires: float | None
    completion: Completion
    keys: tuple[str, ...] = ()
    question_id: int = 0


class LastPart(Plain, frozen=True):
    """The answer to the chord's last part: whoever brought it calls the body.

    Arguments:
        seq: the scheduler's number of the chord's message, which is then to be reported as done.
        parts: what each header task left, encoded, in the header's order.
    """

    seq: int
    parts: list[bytes]


class ChordSize(Tagged, frozen=True):
    """How many parts a chord has. Client or executor -> dispatcher.

    Arguments:
        group: id of the header.
        size: so many.
    """

    group: str
    size: int


class ChordExtra(Tagged, frozen=True):
    """A part was added to a chord that runs (``add_to_chord``). Executor -> dispatcher.

    Arguments:
        group: id of the header.
    """

    group: str


class StoreValue(Tagged, frozen=True):
    """A value by key. Written by a dispatcher that begins its journal anew; clients ask by ``SetValue``.

    Arguments:
        key: whatever Celery's backend code makes.
        value: its, too.
        expires: seconds that it is kept; None: for ever.
    """

    key: bytes
    value: bytes
    expires: float | None


class Part(Plain, frozen=True):
    """One part of a chord in progress.

    Arguments:
        task_id: of the task.
        index: its place in the header.
        order: how many parts were there before it.
        payload: the encoded part.
    """

    task_id: str
    index: float
    order: int
    payload: bytes


class ChordInProgress(Tagged, frozen=True):
    """A chord as the store holds it. Written by a dispatcher that begins its journal anew.

    Arguments:
        group: id of the header.
        size: parts of the chord, where that is known.
        extra: parts that were added while it ran.
        done: whether its completion was handed out.
        parts: what has come.
        completion: of the latest part.
        keys: of large values that parts refer to.
    """

    group: str
    size: int | None
    extra: int
    done: bool
    parts: list[Part]
    completion: Completion | None
    keys: list[str]


class DropLargeValues(Tagged, frozen=True):
    """A process keeps some large values no longer. Client or executor -> dispatcher.

    Arguments:
        holder: the process's id.
        keys: of the values.
    """

    holder: str
    keys: list[str]


class TaskEvent(Tagged, frozen=True):
    """One of Celery's events, on its way to whoever listens. Executor or client -> dispatcher.

    Arguments:
        kind: such as "task-started".
        fields: plain data by name, encoded by who sends it; see :func:`event`.
        node: Ray's id of the executor's node; None where a program sends the event, which is complete as it is.
    """

    kind: str
    fields: msgspec.Raw
    node: str | None


Operation = (
    StoreResult | ChordPart | ChordSize | ChordExtra | StoreValue | ChordInProgress | DropLargeValues | TaskEvent
)


def event(kind: str, fields: dict[str, Any], node: str | None) -> TaskEvent:
    """Make an event of what a program says.

    Raises:
        TypeError: a field is no plain data.
    """
    return TaskEvent(kind, msgspec.Raw(encode(fields)), node)


last_part: Decoder[LastPart | None] = Decoder(LastPart | None)
_fields: Decoder[dict[str, Any]] = Decoder(dict[str, Any])


def fields_of(told: TaskEvent) -> dict[str, Any]:
    """Return the fields of an event.

    Raises:
        ProtocolError: they are not named by strings.
    """
    return _fields.decode(told.fields)
