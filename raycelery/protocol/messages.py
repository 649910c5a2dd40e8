"""Messages of tasks on their way to an executor.

A client *submits*, the dispatcher *assigns*. What is to be run travels as one encoded
:class:`TaskMessage` from the client to the executor; the dispatcher keeps its bytes, and opens it for observers only.
"""

from __future__ import annotations

import operator
import pickle
from collections.abc import Mapping
from typing import Any

from raycelery.protocol.codec import Decoder, Plain, ProtocolError, Seconds, Tagged, encode

# -- what is to be run -------------------------------------------------------------------------------------------------


class Headers(Plain, frozen=True):
    """Celery's headers of a task message, by Celery's names, see
    https://docs.celeryq.dev/en/stable/internals/protocol.html#version-2.

    ``timelimit`` is in two: ``time_limit`` and ``soft_time_limit``, in seconds. ``eta`` and ``expires`` are ISO 8601.
    None where a header is not there, or is of another type than here: then it is in :attr:`TaskMessage.more`.
    """

    lang: str | None = None
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    time_limit: Seconds | None = None
    soft_time_limit: Seconds | None = None


class Delivery(Plain, frozen=True):
    """Where a message was published to.

    Arguments:
        exchange: name of the exchange.
        routing_key: as on a broker.
        priority: as the caller gave it.
    """

    exchange: str
    routing_key: str
    priority: int | None


class CodeKey(Plain, frozen=True):
    """The code of a task that travels by value.

    Arguments:
        key: of the code, see :class:`raycelery.protocol.definitions.DefineCode`.
        prefer_import: whether a task of that name that the executor can import is to be preferred.
    """

    key: str
    prefer_import: bool


class TaskMessage(Plain, frozen=True):
    """A Celery task message: what an executor needs to run it. Client -> executor, by way of the dispatcher.

    Arguments:
        headers: Celery's.
        delivery: where it was published to.
        module: where the caller has the task from; None: ``__main__``, or the caller does not know it.
        code: where the task travels by value.
        content_type: of the body; None: pickled as Ray pickles, see
            :func:`raycelery.serialization.values.dumps_body`.
        content_encoding: of the body; None along with ``content_type``.
        body: arguments, and what follows the task; for the executor.
        embed: what follows the task, pickled, where a serializer has encoded the body; b"" for nothing.
        correlation_id: as on a broker.
        reply_to: as on a broker.
        log_to: id of the client that shows what the task prints; None: nobody.
        more: headers and properties that are not plain data or not Celery's own, pickled; b"" for none.
    """

    headers: Headers
    delivery: Delivery
    module: str | None
    code: CodeKey | None
    content_type: str | None
    content_encoding: str | None
    body: bytes
    embed: bytes = b""
    correlation_id: str | None = None
    reply_to: str | None = None
    log_to: str | None = None
    more: bytes = b""


#: Where a header is in :class:`Headers`, and its type; most are strings.
_TYPES = {"group_index": int, "retries": int, "replaced_task_nesting": int, "ignore_result": bool}
_PLACES: dict[str, tuple[int, type]] = {
    name: (place, _TYPES.get(name, str))
    for place, name in enumerate(Headers.__struct_fields__)
    if not name.endswith("time_limit")
}
_placed = operator.attrgetter(*_PLACES)
_PROPERTIES = ("correlation_id", "reply_to", "log_to")
#: What nearly all messages have, and the types of it that were seen: only what is new is looked at one by one.
_USUAL = {*_PLACES, "id", "task", "timelimit", "stamps", "stamped_headers"}
_USUAL_PROPERTIES = set(_PROPERTIES)
_usual_types: set[tuple[type, ...]] = set()
_NO_LIMITS = [None, None]


def task_message(
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    delivery: tuple[str, str, int | None],
    body: bytes,
    *,
    embed: bytes = b"",
    content_type: str | None = None,
    content_encoding: str | None = None,
    module: str | None = None,
    code: CodeKey | None = None,
) -> bytes:
    """Encode the message of a call.

    Arguments:
        headers: Celery's, and the caller's own, which may be anything that can be pickled.
        properties: likewise.
        delivery: exchange, routing key, and the priority as the caller gave it.

    For the others see :class:`TaskMessage`.
    """
    known = [*map(headers.get, _PLACES), *map(properties.get, _PROPERTIES)]
    limits, more = headers.get("timelimit"), b""
    if not (
        (*map(type, known),) in _usual_types
        and headers.keys() <= _USUAL
        and properties.keys() <= _USUAL_PROPERTIES
        and not (headers.get("stamps") or headers.get("stamped_headers"))
        and (limits is None or limits == _NO_LIMITS)
    ):
        known, limits, more = _sorted(headers, properties)
    correlation_id, reply_to, log_to = known[-3:]
    return encode(
        TaskMessage(
            Headers(*known[:-3], *(limits or _NO_LIMITS)),
            Delivery(*delivery),
            module,
            code,
            content_type,
            content_encoding,
            body,
            embed,
            correlation_id,
            reply_to,
            log_to,
            more,
        )
    )


def _sorted(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[list[Any], Any, bytes]:
    """Return the plain headers and properties, the time limits, and the rest, pickled."""
    known: list[Any] = []
    others = {name: value for name, value in headers.items() if name not in ("id", "task")}
    own = dict(properties)
    for source, name, kind in (
        *((others, name, kind) for name, (_, kind) in _PLACES.items()),
        *((own, name, str) for name in _PROPERTIES),
    ):
        value = source.get(name)
        fits = value is None or type(value) is kind
        known.append(value if fits else None)
        if fits:
            source.pop(name, None)
    if not others.get("stamps") and not others.get("stamped_headers"):
        others.pop("stamps", None)
        others.pop("stamped_headers", None)
    limits = others.pop("timelimit", None) or (None, None)
    if not (len(limits) == 2 and all(limit is None or type(limit) in (int, float) for limit in limits)):
        others["timelimit"], limits = limits, (None, None)
    if others or own:
        return known, limits, pickle.dumps((others, own), 5)
    _usual_types.add((*map(type, known),))
    return known, limits, b""


_task_message: Decoder[TaskMessage] = Decoder(TaskMessage)


def opened(payload: bytes) -> TaskMessage:
    """Undo :func:`task_message`.

    Raises:
        ProtocolError: it is no such message.
    """
    return _task_message.decode(payload)


def headers_and_properties(message: TaskMessage, task_id: str, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return headers and properties as Celery knows them; for executors, which have the caller's classes."""
    plain = message.headers
    headers: dict[str, Any] = dict(zip(_PLACES, _placed(plain), strict=True))
    headers.update(
        id=task_id, task=task, timelimit=[plain.time_limit, plain.soft_time_limit], stamps={}, stamped_headers=None
    )
    properties = {"correlation_id": message.correlation_id, "reply_to": message.reply_to}
    if message.log_to is not None:
        properties["log_to"] = message.log_to
    if message.more:
        more, own = pickle.loads(message.more)
        headers.update(more)
        properties.update(own)
    return headers, properties


# -- to the dispatcher -------------------------------------------------------------------------------------------------


class Submission(Plain, frozen=True):
    """A message for the dispatcher's queues: what it decides by. Client -> dispatcher.

    Arguments:
        task_id: Celery's; a retry has that of the run before.
        task: its name.
        queue: Celery's; it counts against the limits of that queue, of its task and of the application.
        lane: key of a lane that was defined before.
        payload: an encoded :class:`TaskMessage`, for the executor.
        priority: lower runs first.
        eta: when it is due, in seconds since the epoch; None: now.
        time_limit: hard, in seconds, or None.
        stamps: Celery's stamped headers, by which it may be revoked.
        keys: of large values that it refers to.
    """

    task_id: str
    task: str
    queue: str
    lane: str
    payload: bytes
    priority: int = 0
    eta: float | None = None
    time_limit: float | None = None
    stamps: dict[str, Any] | None = None
    keys: tuple[str, ...] = ()


_stamps: Decoder[dict[str, Any]] = Decoder(dict[str, Any])


def stamps_of(stamps: Any) -> dict[str, Any] | None:
    """Return stamps as they are sent; callers may bring anything.

    Raises:
        TypeError: they are no plain data by name.
    """
    if not stamps:
        return None
    try:
        return _stamps.decode(encode(stamps))
    except ProtocolError as exc:
        raise TypeError(f"the stamps {stamps!r} are no plain data by name: {exc}") from exc


# -- to an executor ----------------------------------------------------------------------------------------------------


class Assignment(Tagged, frozen=True):
    """A message for an executor to run, or to do Celery's bookkeeping of. Dispatcher -> executor.

    Arguments:
        seq: the scheduler's number of it.
        task_id: Celery's.
        task: its name.
        payload: an encoded :class:`TaskMessage`.
        settle_reason: why it is not to be run, see :data:`raycelery.scheduler.model.SettleReason`; None: it is.
        reason: the same in words, for the error.
        deliveries: how often it was handed to an executor before.
    """

    seq: int
    task_id: str
    task: str
    payload: bytes
    settle_reason: str | None = None
    reason: str = ""
    deliveries: int = 0


class ChordAssignment(Tagged, frozen=True):
    """A chord whose parts are all there, for an executor to call the body of. Dispatcher -> executor.

    Arguments:
        seq: the scheduler's number of it.
        group: id of the header.
        callback: the pickled signature of the body.
        origin: what the body inherits of the task that was the last part, pickled.
        parts: what each header task left, encoded, in the header's order.
    """

    seq: int
    group: str
    callback: bytes
    origin: bytes
    parts: list[bytes]


class BatchAssignment(Tagged, frozen=True):
    """Messages of a bridge for an executor to run one after the other. Dispatcher -> executor.

    Arguments:
        seq: the scheduler's number of the batch.
        quick: whether they are expected to be short, so that nobody needs to hear that one has begun.
        messages: an encoded :class:`BridgedTask` or :class:`BridgedCall` each; in order of their numbers.
    """

    seq: int
    quick: bool
    messages: list[bytes]


# -- messages of a bridge ----------------------------------------------------------------------------------------------


class BridgedTask(Tagged, frozen=True):
    """A broker's message: what an executor needs to run it. Bridge -> executor, by way of the dispatcher.

    Arguments:
        task: name of the task.
        task_id: Celery's.
        request: what Celery's tracer is told of it, and the body as it came, pickled.
        content_type: of the body; None or "" where it is decoded.
        content_encoding: of the body.
        soft_limit: time limit in seconds, or None.
        hostname: the worker's node name.
        module: where the worker has the task from.
        code: where the task travels by value.
    """

    task: str
    task_id: str
    request: bytes
    content_type: str | None
    content_encoding: str | None
    soft_limit: Seconds | None
    hostname: str | None
    module: str | None
    code: CodeKey | None


class BridgedCall(Tagged, frozen=True):
    """A call of a function that a task's ``Strategy`` makes. Bridge -> executor, by way of the dispatcher.

    Arguments:
        task: name of the task, or of the function.
        task_id: the call's.
        call: function, positional and keyword arguments, pickled.
        soft_limit: time limit in seconds, or None.
    """

    task: str
    task_id: str
    call: bytes
    soft_limit: Seconds | None


bridged: Decoder[BridgedTask | BridgedCall] = Decoder(BridgedTask | BridgedCall)
