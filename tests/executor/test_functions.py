"""``executor="function"``: one Ray remote function per message keeps to the same rules as a warm executor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from celery.exceptions import ChordError, SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.result import ResultSet

from tests import parents, records, sample, tasks
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def call(task: Any, *args: Any, **options: Any) -> Any:
    """Call a task, to be run by a remote function."""
    return task.apply_async(args, executor="function", **options)


def test_many() -> None:
    results = [call(sample.add, i, 1) for i in range(12)]
    assert ResultSet(results, app=sample.app).join(timeout=SECONDS) == list(range(1, 13))


def test_soft_limit() -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        call(tasks.soft_uncaught).get(timeout=SECONDS)


def test_hard_limit() -> None:
    with pytest.raises(TimeLimitExceeded):
        call(sample.hard_limited).get(timeout=SECONDS)


def test_death(path: str) -> None:
    result = call(tasks.die, path)
    with pytest.raises(WorkerLostError):
        result.get(timeout=SECONDS)
    assert len(records.read(path)) == 1, "Ray does not run it again by itself"


def test_late_acknowledgement(tmp_path: Path) -> None:
    assert call(sample.die_once, str(tmp_path / "died")).get(timeout=SECONDS) == "survived"


def test_a_message_that_always_kills_is_given_up() -> None:
    with pytest.raises(WorkerLostError, match="ray_max_deliveries=3"):
        call(sample.die_always).get(timeout=SECONDS)


def test_leaving_the_process() -> None:
    with pytest.raises(WorkerLostError):
        call(tasks.leave, 3).get(timeout=SECONDS)


def test_terminate(tmp_path: Path) -> None:
    held, go = tmp_path / "held", tmp_path / "go"
    result = call(tasks.hold, str(held), str(go))
    until(held.exists)
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    pid = int(held.read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}") or "ray::IDLE" in Path(f"/proc/{pid}/cmdline").read_text())


def test_revoke_while_it_waits(path: str) -> None:
    result = call(sample.touch, path, countdown=300)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)


def test_retry_and_reject(path: str) -> None:
    assert call(sample.retry_until, 2).get(timeout=SECONDS) == 2
    assert call(tasks.reject_times, path, 2).get(timeout=SECONDS) == [False, True, True]


def test_chord() -> None:
    header = [sample.add.s(i, i).set(executor="function") for i in range(4)]
    assert chord(header, sample.tsum.s().set(executor="function")).apply_async().get(timeout=SECONDS) == 12
    failing = chord([sample.fail.s("EWR", 1).set(executor="function")], sample.tsum.s()).apply_async()
    assert isinstance(failing.get(timeout=SECONDS, propagate=False), ChordError)


def test_nesting(path: str) -> None:
    results = [call(parents.sum_of_children, path, 3) for _ in range(5)]
    assert ResultSet(results, app=sample.app).join(timeout=SECONDS) == [3] * 5
