"""The caller's side without a dispatcher: ids, and how results are asked for and handed out."""

from __future__ import annotations

import os
import sys
import threading
import uuid
from typing import Any

import pytest

from raycelery.app.producer import new_id
from raycelery.client.connection import Client
from raycelery.client.waiting import Waiting
from raycelery.protocol import framing
from raycelery.protocol.frames import Acknowledged, Changes, Hello, Result, Results, Watch, to_dispatcher
from raycelery.protocol.messages import Submission


class Connected(Client):
    """A client whose dispatcher is the test."""

    def __init__(self) -> None:
        super().__init__(lambda: framing.Endpoint("nowhere.invalid", 1, b""), Hello("client"))
        self.asked: list[tuple[list[str], list[str]]] = []

    def ensure(self) -> None:
        pass

    def _send(self, frame: bytes, flags: int = 0) -> None:
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
