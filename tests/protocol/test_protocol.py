"""Everything that travels or is written: it comes out as it went in, anything else is refused, and it is described."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import pickle
import re
import socket
import struct
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycelery import errors
from raycelery.protocol import (
    asking,
    bus_questions,
    codec,
    definitions,
    frames,
    framing,
    limits,
    messages,
    operations,
    questions,
    records,
    refusals,
    reports,
)
from raycelery.protocol.codec import Decoder, Plain, ProtocolError, encode

MODULES = (definitions, limits, messages, reports, operations, questions, bus_questions, frames, records)
KINDS = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Plain)
        and kind.__module__ == module.__name__
        and kind not in (asking.Question, asking.Change)
    },
    key=lambda kind: (kind.__module__, kind.__name__),
)
UNIONS: dict[str, Any] = {
    "to_dispatcher": frames.ToDispatcher,
    "from_dispatcher": frames.FromDispatcher,
    "record": records.Record,
    "question": questions.AnyQuestion,
    "definition": definitions.Definition,
    "operation": operations.Operation,
    "report": reports.Report,
}
#: What the dataclasses were when VERSION was raised last. A change of one needs another version, and then another of
#: these: two processes that understand each other wrongly are worse than two that say why they do not.
FINGERPRINT = (7, "9feec12eab928e9d")

#: Examples of each; a busy machine makes no example slow.
few = settings(max_examples=5, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WHOLE = st.integers(-(2**63), 2**64 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False) | TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field's type."""
    basic = {
        str: TEXT,
        int: WHOLE,
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        bytes: st.binary(max_size=8),
    }
    if kind in basic:
        return basic[kind]
    if kind is None or kind is type(None):
        return st.none()
    if kind is Any:
        return PLAIN
    if kind is msgspec.Raw:
        return PLAIN.map(encode).map(msgspec.Raw)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values_of, inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is list:
        return st.lists(values_of(inner[0]), max_size=3)
    if origin is tuple:
        many = len(inner) == 2 and inner[1] is Ellipsis
        return st.lists(values_of(inner[0]), max_size=3).map(tuple) if many else st.tuples(*map(values_of, inner))
    if origin is dict:
        return st.dictionaries(values_of(inner[0]), values_of(inner[1]), max_size=3)
    return st.builds(kind, **{field.name: values_of(field.type) for field in msgspec.structs.fields(kind)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@few
@given(data=st.data())
def test_what_is_encoded_comes_out_again(kind: type[Plain], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    encoded = encode(value)
    decoded: Any = Decoder(kind).decode(encoded)
    assert type(decoded) is kind
    assert encode(decoded) == encoded


@pytest.mark.parametrize("name", UNIONS)
@few
@given(data=st.data())
def test_each_is_told_from_the_others(name: str, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(get_args(UNIONS[name])))
    value = data.draw(values_of(kind))
    assert type(Decoder(UNIONS[name]).decode(encode(value))) is kind


def _wrong(value: Plain) -> Iterator[list[Any]]:
    """Yield what a dataclass might be encoded as if somebody had it wrong: too short, too long, of other types."""
    kind = type(value)
    tagged = kind.__struct_config__.tag
    fields = msgspec.structs.fields(kind)
    yield [tagged] * bool(tagged) + [None] * (len(fields) + 1)
    if any(field.required for field in fields):
        yield [tagged] * bool(tagged)
    for number, field in enumerate(fields):
        if field.type in (Any, msgspec.Raw):
            continue
        whole: list[Any] = msgspec.msgpack.decode(encode(value))
        whole[number + bool(tagged)] = 0.5 if "dict" in str(field.type) else {"of another": {"type": 1}}
        yield whole


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=1, deadline=None)
@given(data=st.data())
def test_what_is_of_another_form_is_refused(kind: type[Plain], data: st.DataObject) -> None:
    for wrong in _wrong(data.draw(values_of(kind))):
        with pytest.raises(ProtocolError):
            Decoder(kind).decode(encode(wrong))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_says_what_it_is_and_what_its_fields_are(kind: type[Plain]) -> None:
    text = inspect.cleandoc(kind.__doc__ or "")
    assert text, "it says nothing of itself"
    if kind in (messages.Headers, limits.Limits):
        return  # whose names are Celery's, and those of settings
    told = re.findall(r"^    (\w+): ", text, re.MULTILINE)
    assert told == list(kind.__struct_fields__)
    if kind in get_args(frames.ToDispatcher) + get_args(frames.FromDispatcher) + get_args(reports.Report):
        assert re.search(r"\w -> \w", text.partition("Arguments:")[0]), "who sends it to whom?"


def test_another_form_needs_another_version() -> None:
    said = repr(
        sorted((kind.__name__, [(f.name, str(f.type)) for f in msgspec.structs.fields(kind)]) for kind in KINDS)
    )
    assert (codec.VERSION, hashlib.sha256(said.encode()).hexdigest()[:16]) == FINGERPRINT


def test_callers_bring_classes_of_their_own() -> None:
    class Name(str):
        pass

    assert Decoder(str).decode(encode(Name("x"))) == "x"
    with pytest.raises(TypeError, match=r"object .* is no plain data"):
        encode([object()])
    for value in (2**64, "\ud800"):
        with pytest.raises(TypeError, match="cannot be encoded"):
            encode(value)


@few
@given(data=st.data(), cuts=st.lists(st.integers(1, 40), max_size=20))
def test_a_stream_is_cut_where_frames_end(data: st.DataObject, cuts: list[int]) -> None:
    sent = [data.draw(values_of(kind)) for kind in (frames.Watch, frames.Hello, frames.FollowLines)]
    stream = b"".join(map(framing.pack, sent))
    unpacker = framing.Unpacker(frames.to_dispatcher)
    found = []
    for cut in (*cuts, len(stream)):
        part, stream = stream[:cut], stream[cut:]
        found += unpacker.feed_raw(part)
    assert [frame for frame, _ in found] == sent
    assert [raw for _, raw in found] == list(map(framing.pack, sent))


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!I", framing.FRAME_BYTES + 1),
        struct.pack("!I", 3) + b"abc",
        struct.pack("!I", 0),
        framing.pack(frames.Stop()),  # it goes the other way
        struct.pack("!I", 100) + b"\x91" * 100,
    ],
)
def test_a_stream_of_something_else_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        framing.Unpacker(frames.to_dispatcher).feed(sent)


# -- messages ----------------------------------------------------------------------------------------------------------

HEADERS = {
    "lang": "py",
    "task": "shop.add",
    "id": "one",
    "shadow": None,
    "eta": None,
    "expires": "2030-01-01T00:00:00+00:00",
    "group": "g",
    "group_index": 1,
    "retries": 0,
    "timelimit": [10, 2.5],
    "root_id": "one",
    "parent_id": None,
    "argsrepr": "(1,)",
    "kwargsrepr": "{}",
    "origin": "gen1@here",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
PROPERTIES = {"correlation_id": "one", "reply_to": "me"}


def _through(headers: dict[str, Any], properties: dict[str, Any]) -> tuple[messages.TaskMessage, Any, Any]:
    message = messages.opened(messages.task_message(headers, properties, ("", "celery", None), b"body"))
    return message, *messages.headers_and_properties(message, headers["id"], headers["task"])


def test_a_message_keeps_its_headers_and_is_plain_where_it_can_be() -> None:
    message, headers, properties = _through(HEADERS, PROPERTIES)
    assert (headers, properties) == (HEADERS, PROPERTIES)
    assert message.more == b"", "nothing of it needs a pickle"


@pytest.mark.parametrize(
    "own",
    [
        {"tenant": {"name": Path("x")}},
        {"retries": 1.0},
        {"timelimit": [errors, None]},
        {"timelimit": (1, 2, 3)},
        {"stamps": {"day": {1, 2}}, "stamped_headers": ["day"]},
        {"shadow": b"bytes"},
        {"group_index": True},
    ],
    ids=str,
)
def test_a_message_keeps_headers_that_are_not_plain(own: dict[str, Any]) -> None:
    if own.get("timelimit", [None])[0] is errors:
        own = {"timelimit": [Path("x"), None]}
    message, headers, properties = _through({**HEADERS, **own}, {**PROPERTIES, "mine": (1,), "log_to": "it"})
    assert headers == {**HEADERS, **own}
    assert type(headers[next(iter(own))]) is type(next(iter(own.values())))
    assert properties == {**PROPERTIES, "mine": (1,), "log_to": "it"}
    assert pickle.loads(message.more)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("a"), KeyError("gone"), errors.DispatcherUnreachable("b"), errors.QueueFull("c")], ids=repr
)
def test_errors_come_out_as_what_they_were(error: Exception) -> None:
    found = refusals.error_of(*refusals.named(error))
    assert (type(found), found.args) == (type(error), error.args)


def test_an_error_of_another_kind_is_told_by_its_name() -> None:
    class Odd(Exception):
        pass

    found = refusals.error_of(*refusals.named(Odd("so")))
    assert type(found) is errors.RayCeleryError
    assert str(found) == "Odd: so"
    assert type(refusals.error_of("LEAVING", "x")) is type(refusals.error_of("TaskNotRegistered", "x")) is type(found)


# -- the greeting ------------------------------------------------------------------------------------------------------


def test_a_greeting_is_heard_in_any_portions() -> None:
    endpoint = framing.Endpoint("10.0.0.1", 5000, os.urandom(32))
    greeting = framing.Greeting(endpoint)
    nonces = os.urandom(framing.NONCE_BYTES), greeting.opening[framing.HEAD_BYTES :]
    said = framing.head() + framing.proof(endpoint, "client", *nonces) + nonces[0] + b"more"
    for byte in said[:-5]:
        assert greeting.hear(bytes([byte])) is None
    assert greeting.hear(said[-5:]) == (framing.proof(endpoint, "dispatcher", *nonces), b"more")


class _Listener(threading.Thread):
    """What listens at an endpoint, whoever that is: it answers one connection, and sends one frame."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        super().__init__(daemon=True)
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.start()

    def run(self) -> None:
        conn, _ = self._server.accept()
        with conn, self._server, contextlib.suppress(OSError, errors.DispatcherUnreachable):
            self._answer(conn)


def test_a_strangers_proof_is_not_that_of_another_client() -> None:
    secret = os.urandom(32)
    size = framing.HEAD_BYTES + framing.DIGEST_BYTES + framing.NONCE_BYTES

    def stranger(victim: socket.socket) -> None:
        # It gives a second client the nonce of the first, and the first the second one's answer as its own proof.
        victim.sendall(framing.head() + os.urandom(framing.NONCE_BYTES))
        nonce = victim.recv(size, socket.MSG_WAITALL)[-framing.NONCE_BYTES :]
        said: list[bytes] = []

        def ask(other: socket.socket) -> None:
            other.sendall(framing.head() + nonce)
            said.append(other.recv(size, socket.MSG_WAITALL))

        helper = _Listener(ask)
        with pytest.raises(errors.DispatcherUnreachable):
            framing.connect(framing.Endpoint("127.0.0.1", helper.port, secret))
        helper.join(30)
        victim.sendall(said[0][framing.HEAD_BYTES :][: framing.DIGEST_BYTES])

    listener = _Listener(stranger)
    with pytest.raises(errors.DispatcherUnreachable, match="is not this application's dispatcher"):
        framing.connect(framing.Endpoint("127.0.0.1", listener.port, secret))


@pytest.mark.parametrize("moved", [False, True], ids=["where it says", "elsewhere"])
def test_a_connection_that_is_passed_on_to_the_dispatcher_is_refused(moved: bool) -> None:
    secret = os.urandom(32)
    true = framing.Endpoint("127.0.0.1", 1, secret)

    def pass_on(conn: socket.socket) -> None:
        greeting = framing.Greeting(true if moved else framing.Endpoint("127.0.0.1", listener.port, secret))
        conn.sendall(greeting.opening)
        while (answer := greeting.hear(conn.recv(4096))) is None:
            pass
        conn.sendall(answer[0])

    listener = _Listener(pass_on)
    with pytest.raises(errors.DispatcherUnreachable) if moved else contextlib.nullcontext():
        framing.connect(framing.Endpoint("127.0.0.1", listener.port, secret)).close()


def test_a_greeting_of_another_version_is_refused_before_any_proof() -> None:
    with pytest.raises(errors.VersionMismatch, match=rf"speaks version 99 .* this dispatcher version {codec.VERSION}:"):
        framing.Greeting(framing.Endpoint("", 0, b"x")).hear(framing.head(99))
    with pytest.raises(errors.DispatcherUnreachable, match="does not know the secret"):
        framing.Greeting(framing.Endpoint("", 0, b"x")).hear(b"GET /")
