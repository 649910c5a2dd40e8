"""The caller's side without a dispatcher: ids, and how results are asked for and handed out."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raycelery.app.producer import new_id
from raycelery.client.connection import Client, Closed
from raycelery.client.waiting import Waiting
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing, questions
from raycelery.protocol.frames import Acknowledged, Changes, Hello, Result, Results, Stop, Watch, to_dispatcher
from raycelery.protocol.messages import Submission
from tests.support import until


class Connected(Client):
    """A client whose dispatcher is the test."""

    def __init__(self) -> None:
        super().__init__(lambda: framing.Endpoint("nowhere.invalid", 1, b""), Hello("client"))
        self.asked: list[tuple[list[str], list[str]]] = []
        self._link.ensure = lambda deadline=None: None  # type: ignore[method-assign]
        self._link.send = self._sent  # type: ignore[method-assign]

    def _sent(self, frame: bytes, flags: int = 0) -> None:
        [sent] = framing.Unpacker(to_dispatcher).feed(frame)
        if isinstance(sent, Watch):
            self.asked.append((sent.ids, sent.prefetched))
        elif isinstance(sent, Changes):
            self._receive([Acknowledged([sent.frame_id])])

    def arrive(self, *ids: str, large: bool = False) -> None:
        results = [Result(task_id, "SUCCESS", None if large else task_id.encode()) for task_id in ids]
        self._receive([Results(results)])


@pytest.fixture
def client() -> Connected:
    return Connected()


def results(*ids: str) -> dict[str, Any]:
    return {task_id: Result(task_id, "SUCCESS", task_id.encode()) for task_id in ids}


def test_many_are_asked_for_once_and_each_is_handed_out_once(client: Connected) -> None:
    ids = [f"t{i}" for i in range(1000)]
    got: list[str] = []
    with Waiting(client, ids) as waiting:
        assert waiting.next(0) == {}
        for start in range(0, 1000, 100):
            client.arrive(*ids[start : start + 100])
            got += waiting.next(0)
        assert waiting.next(0) == {}
    assert got == ids
    assert client.asked == [(ids, [])]


def test_what_came_before_is_found(client: Connected) -> None:
    client.arrive("early")
    with Waiting(client, ["early", "late"]) as waiting:
        assert waiting.next() == results("early")
        assert client.asked == []
        assert waiting.next(0) == {}
        assert client.asked == [(["late"], [])]


def test_two_waits_for_one_result_both_get_it(client: Connected) -> None:
    with Waiting(client, ["a", "b"]) as first, Waiting(client, ["b"]) as second:
        first.next(0), second.next(0)
        client.arrive("b")
        assert first.next() == second.next() == results("b")
    assert client.take("b") is None


def test_what_was_not_read_is_kept_for_the_next_wait(client: Connected) -> None:
    with Waiting(client, ["a", "b"]) as waiting:
        waiting.next(0)
        client.arrive("a")
    client.arrive("b")
    assert client.take("a") == Result("a", "SUCCESS", b"a")
    assert Waiting(client, ["b"]).next() == results("b")
    assert len(client.asked) == 1


def test_the_next_results_are_prefetched_and_large_ones_asked_for(client: Connected) -> None:
    for task_id in ("a", "b", "c"):
        client.submit(Submission(task_id, "task", "queue", "lane", b""))
    with Waiting(client, ["a"]) as waiting:
        waiting.next(0)
        assert client.asked == [(["a"], ["b", "c"])]
        client.arrive("a", "b")
        assert waiting.next() == results("a")
    assert client.take("b") == Result("b", "SUCCESS", b"b")
    with Waiting(client, ["c"]) as waiting:
        assert waiting.next(0) == {}
        assert len(client.asked) == 1, "it comes by itself"
        client.arrive("c", large=True)
        waiting.next(0)
        assert client.asked[1:] == [(["c"], [])]
        client.arrive("c")
        assert waiting.next() == results("c")


def test_one_thread_waits_for_what_another_forgets(client: Connected) -> None:
    ids: list[str] = []
    failed: list[BaseException] = []
    over = threading.Event()

    def forget() -> None:
        try:
            while not over.is_set():
                for task_id in reversed(list(ids)):
                    client.forget(task_id)
        except BaseException as exc:  # whatever it is, the test tells of it
            failed.append(exc)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=forget)
    try:
        thread.start()
        for turn in range(300):
            ids[:] = [f"{turn}/{i}" for i in range(500)]
            for task_id in ids:
                client.submit(Submission(task_id, "task", "queue", "lane", b""))
            # The others are asked for along with it.
            with Waiting(client, ids[:1]) as waiting:
                assert waiting.next(0) == {}
    finally:
        over.set()
        thread.join(60)
        sys.setswitchinterval(before)
    assert not failed, failed


Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def dispatcher(*talks: Talk) -> Iterator[framing.Endpoint]:
    """Listen as a dispatcher does; each connection in turn is let in, and then handed to the next of ``talks``."""
    server = socket.create_server(("127.0.0.1", 0))
    endpoint = framing.Endpoint("127.0.0.1", server.getsockname()[1], os.urandom(32))

    def serve() -> None:
        for talk in talks:
            try:
                conn, _ = server.accept()
            except OSError:  # the test is over
                return
            with conn, contextlib.suppress(OSError):
                greeting = framing.Greeting(endpoint)
                conn.sendall(greeting.opening)
                while (heard := greeting.hear(conn.recv(4096))) is None:
                    pass
                conn.sendall(heard[0])
                talk(conn)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.close()


def until_closed(conn: socket.socket) -> None:
    while conn.recv(4096):
        pass


def garbage(conn: socket.socket) -> None:
    conn.sendall(b"\0\0\0\5no frame at all")
    until_closed(conn)


def one_result(conn: socket.socket) -> None:
    conn.sendall(framing.pack(Results([Result("a", "SUCCESS", b"a")])))
    until_closed(conn)


def test_what_cannot_be_read_ends_the_connection_and_is_told() -> None:
    with dispatcher(garbage, garbage, garbage, garbage) as endpoint:
        client = Client(lambda: endpoint, Hello("client"))
        with pytest.raises(DispatcherUnreachable, match=r"given up, as what it sent cannot be read: .+"):
            Waiting(client, ["a"]).next()
        assert not client.connected


def test_one_frame_that_cannot_be_read_is_no_reason_to_give_up() -> None:
    with dispatcher(garbage, one_result) as endpoint:
        client = Client(lambda: endpoint, Hello("client"))
        assert Waiting(client, ["a"]).next() == results("a")
        client.close()


def test_what_is_done_with_a_frame_fails() -> None:
    def stop(conn: socket.socket) -> None:
        conn.sendall(framing.pack(Stop()))
        until_closed(conn)

    with dispatcher(stop) as endpoint:
        told: list[Any] = []

        def take(frame: Any) -> None:
            told.append(frame)
            if isinstance(frame, Stop):
                raise LookupError("as asked")

        client = Client(lambda: endpoint, Hello("executor"), on_frame=take)
        with pytest.raises(DispatcherUnreachable):
            client.call(questions.Pending(), timeout=None)
        until(lambda: told[1:])
        assert isinstance(told[-1], Closed), "who runs tasks is told that no more come"
        assert told[-1].reason == "this process could not take what it sent: LookupError('as asked')"
        assert client.lost


def test_a_wait_lasts_no_longer_than_it_may_while_the_dispatcher_is_restarted() -> None:
    down, back = threading.Event(), threading.Event()

    def until_down(conn: socket.socket) -> None:
        assert down.wait(60)

    with dispatcher(until_down, one_result) as endpoint:

        def find() -> framing.Endpoint:
            if down.is_set():
                assert back.wait(60)
            return endpoint

        client = Client(find, Hello("client"))
        with Waiting(client, ["a"]) as waiting:
            assert waiting.next(0.01) == {}
            down.set()
            until(lambda: not client.connected)
            assert waiting.next(0.1) == {}, "it is not back"
            hanging = threading.Thread(target=lambda: client.call(questions.Pending(), timeout=None), daemon=True)
            hanging.start()
            assert waiting.next(0.1) == {}, "nor does it wait for others, who have more time"
            with pytest.raises(DispatcherUnreachable):
                client.call(questions.Pending(), timeout=0.1)
            assert not back.is_set()
            back.set()
            assert waiting.next(60) == results("a")
        client.close()


def test_ids_are_random_uuids_and_a_forked_child_makes_others() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for text in ids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, new_id().encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(reader, 100).decode() != new_id()
