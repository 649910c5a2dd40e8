"""A dispatcher that is killed comes back with what it was told: nothing is lost, nothing begun is run again."""

from __future__ import annotations

import os
import resource
import signal
from collections import Counter
from pathlib import Path

import pytest
import ray
from celery import chord
from celery.exceptions import WorkerLostError

from raycelery.dispatcher.store import Store
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import questions
from raycelery.protocol.operations import StoreResult
from tests import sample
from tests.support import RaySession, until

SECONDS = 90


def kill_dispatcher() -> None:
    client = sample.app.client
    pid = client.call(questions.Stats())["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not client.connected, SECONDS)


def test_what_is_past_its_age_does_not_come_back_for_ever() -> None:
    store = Store(1e6)
    store.set_meta(StoreResult("old", "SUCCESS", b"", (), 1.0, True), 0.0)
    store.set_meta(StoreResult("young", "SUCCESS", b"", (), 9.0, True), 0.0)
    store.set("key", b"", 1.0, 0.0)
    assert [(left.task_id, left.expires) for left in store.ops(1.0)] == [("young", 8.0)]


def test_waiting_messages_and_results_survive(ray_session: RaySession, tmp_path: Path) -> None:
    early = sample.add.delay(1, 2)
    assert early.get(timeout=SECONDS) == 3
    later = [sample.touch.apply_async((str(tmp_path / str(i)),), countdown=2.0) for i in range(50)]
    unread = sample.add.delay(20, 22)
    until(lambda: unread.state == "SUCCESS", SECONDS)
    kill_dispatcher()
    assert sample.app.AsyncResult(unread.id).get(timeout=SECONDS) == 42
    for i, result in enumerate(later):
        assert result.get(timeout=SECONDS) == str(tmp_path / str(i))
        assert len((tmp_path / str(i)).read_text().splitlines()) == 1
    assert sample.add.delay(3, 4).get(timeout=SECONDS) == 7


def test_what_was_running_is_lost_as_with_a_lost_worker(ray_session: RaySession, tmp_path: Path) -> None:
    begun = [sample.touch.delay(str(tmp_path / str(i)), 30.0) for i in range(ray_session.num_cpus)]
    behind = [sample.touch.delay(str(tmp_path / f"behind{i}")) for i in range(5)]
    until(lambda: all((tmp_path / str(i)).exists() for i in range(len(begun))), SECONDS)
    kill_dispatcher()
    for i, result in enumerate(begun):
        with pytest.raises(WorkerLostError, match="restarted"):
            result.get(timeout=SECONDS)
        assert len((tmp_path / str(i)).read_text().splitlines()) == 1
    for result in behind:
        result.get(timeout=SECONDS)


def test_a_caller_who_waits_goes_on_waiting(ray_session: RaySession) -> None:
    import threading

    result = chord([sample.add.s(i, i).set(countdown=2.0) for i in range(10)], sample.tsum.s()).apply_async()
    killer = threading.Timer(0.5, kill_dispatcher)
    killer.start()
    assert result.get(timeout=SECONDS) == 90
    killer.join()


def test_submissions_while_it_is_down_are_not_lost(ray_session: RaySession, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    sample.add.delay(1, 1).get(timeout=SECONDS)
    kill_dispatcher()
    results = [sample.write.delay(i, str(path)) for i in range(300)]
    for result in results:
        result.get(timeout=SECONDS)
    assert Counter(path.read_text().split()) == {str(i): 1 for i in range(300)}


def test_a_forked_child_finds_the_dispatcher_again(ray_session: RaySession, tmp_path: Path) -> None:
    path = tmp_path / "said"
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    pid = os.fork()
    if not pid:
        status = 1
        try:
            assert sample.add.delay(3, 4).get(timeout=SECONDS) == 7
            kill_dispatcher()
            path.write_text(str(sample.add.delay(5, 6).get(timeout=SECONDS)))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert path.read_text() == "11"
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3


def journal_of(name: str) -> Path:
    return Path(ray._private.worker._global_node.get_session_dir_path()) / "raycelery" / f"{name}.journal"


def dispatcher_pid() -> int:
    return int(sample.app.client.call(questions.Stats())["pid"])


def test_nothing_is_acknowledged_before_it_is_in_the_journal(ray_session: RaySession, tmp_path: Path) -> None:
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    pid = dispatcher_pid()
    # No write succeeds from now on, as on a disk that is full.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    results = [sample.touch.delay(str(tmp_path / str(i))) for i in range(100)]
    with pytest.raises(DispatcherUnreachable, match="did not answer"):
        sample.app.client.call(questions.Pending(), timeout=3.0)
    assert not list(tmp_path.iterdir()), "nothing is handed to executors that a killed dispatcher would not know of"
    os.kill(pid, signal.SIGKILL)
    for i, result in enumerate(results):
        assert result.get(timeout=SECONDS) == str(tmp_path / str(i))
        assert len((tmp_path / str(i)).read_text().splitlines()) == 1


def test_a_journal_that_can_be_written_again(ray_session: RaySession) -> None:
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    pid = dispatcher_pid()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    results = [sample.add.delay(i, 1) for i in range(100)]
    with pytest.raises(DispatcherUnreachable, match="did not answer"):
        sample.app.client.call(questions.Pending(), timeout=2.0)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert [result.get(timeout=SECONDS) for result in results] == list(range(1, 101))
    assert dispatcher_pid() == pid


def test_what_is_damaged_is_left_out_and_kept_aside(ray_session: RaySession) -> None:
    path, later, ends = journal_of(str(sample.app.main)), [], []
    for i in range(3):
        # Each in a record of its own.
        later.append(sample.add.apply_async((i, 1), countdown=5.0))
        until(lambda: sample.app.client.call(questions.Unknown([later[-1].id])) == [])
        ends.append(path.stat().st_size)
    pid = dispatcher_pid()
    os.kill(pid, signal.SIGSTOP)
    text = bytearray(path.read_bytes())
    text[ends[1] - 80 : ends[1] - 16] = b"#" * 64
    path.write_bytes(text)
    os.kill(pid, signal.SIGKILL)
    assert later[0].get(timeout=SECONDS) == 1
    assert later[2].get(timeout=SECONDS) == 3
    assert path.with_name(f"{path.name}.damaged").read_bytes() == bytes(text)
