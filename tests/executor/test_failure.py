"""Executors that die: only what they were running is affected, nothing is lost, nothing runs twice that may not."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chord
from celery.exceptions import ChordError, WorkerLostError
from celery.result import ResultSet

from raycelery.protocol import questions
from tests import records, sample, tasks
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def executor_pids() -> list[int]:
    """Return the processes of the sample application's executors."""
    return list(sample.app.client.call(questions.Stats())["executor_pids"].values())


def kill(pid: int) -> None:
    """End a process as the kernel's out-of-memory killer does."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def values_of(results: list[Any]) -> list[Any]:
    """Return values and errors of all results."""
    return ResultSet(results, app=sample.app).join(timeout=SECONDS, propagate=False)  # type: ignore[no-any-return]


def test_a_task_whose_executor_dies_fails_with_worker_lost(path: str, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    result = tasks.die.apply_async((path,), link_error=sample.write_error.s(path=str(errors)))
    with pytest.raises(WorkerLostError):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    text = until(lambda: errors.exists() and errors.read_text())
    assert text.startswith(f"{result.id} WorkerLostError")
    assert len(records.read(path)) == 1


def test_only_the_message_that_was_running_fails(path: str) -> None:
    # Known to be short, so that executors get many at a time.
    values_of([tasks.once.delay(os.devnull, i) for i in range(40)])
    before = [tasks.once.delay(path, i) for i in range(200)]
    death = tasks.die.delay(os.devnull)
    after = [tasks.once.delay(path, i) for i in range(200, 400)]
    assert values_of(before + after) == list(range(400))
    assert isinstance(values_of([death])[0], WorkerLostError)
    assert Counter(one["number"] for one in records.read(path)) == Counter(range(400))


def test_killed_from_outside_while_it_runs_one_of_many(path: str) -> None:
    results = [tasks.once.delay(path, i, 0.3) for i in range(12)]
    victim = records.wait_for(path, 3)[-1]
    kill(victim["pid"])
    values = values_of(results)
    lost = [i for i, value in enumerate(values) if isinstance(value, WorkerLostError)]
    # It may have gone on to its next message before it was killed.
    assert len(lost) == 1
    assert [value for i, value in enumerate(values) if i not in lost] == [i for i in range(12) if i not in lost]
    assert Counter(one["number"] for one in records.read(path)) == Counter(range(12))


def test_late_acknowledgement_and_reject_on_worker_lost_run_again(tmp_path: Path) -> None:
    assert sample.die_once.delay(str(tmp_path / "died")).get(timeout=SECONDS) == "survived"


def test_late_acknowledgement_alone_does_not_run_again(path: str) -> None:
    with pytest.raises(WorkerLostError):
        tasks.late_death.delay(path).get(timeout=SECONDS)
    assert len(records.read(path)) == 1


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery has retry_on_worker_lost since 5.7")
def test_retry_on_worker_lost(path: str, tmp_path: Path) -> None:
    assert tasks.retried_death.delay(path, 2).get(timeout=SECONDS) == "survived"
    assert len(records.read(path)) == 3
    with pytest.raises(WorkerLostError):
        tasks.retried_death.delay(str(tmp_path / "always"), 100).get(timeout=SECONDS)
    assert len(records.read(tmp_path / "always")) == 3


def test_a_message_that_always_kills_is_given_up(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    result = sample.die_always.apply_async(link_error=sample.write_error.s(path=str(errors)))
    with pytest.raises(WorkerLostError, match="ray_max_deliveries=3"):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    text = until(lambda: errors.exists() and errors.read_text())
    assert text.startswith(f"{result.id} WorkerLostError")


def test_a_chord_with_a_message_that_always_kills_is_resolved() -> None:
    result = chord([sample.add.s(1, 1), sample.die_always.s()], sample.tsum.s()).apply_async()
    with pytest.raises(ChordError, match="WorkerLostError"):
        result.get(timeout=SECONDS, follow_parents=False)


@pytest.mark.parametrize("task", [tasks.leave.s(0), tasks.leave.s(3), tasks.interrupted.s()])
def test_leaving_the_process_is_a_lost_worker(task: Any) -> None:
    """Celery: "Worker exited prematurely"."""
    with pytest.raises(WorkerLostError):
        task.delay().get(timeout=SECONDS)
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3


def test_memory_error() -> None:
    result = tasks.out_of_memory.delay()
    with pytest.raises((MemoryError, WorkerLostError)):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3


def test_what_an_executor_had_not_begun_runs_elsewhere() -> None:
    for pid in executor_pids():
        kill(pid)
    assert values_of([sample.add.delay(i, 1) for i in range(50)]) == list(range(1, 51))


def test_history_under_random_kills(path: str, tmp_path: Path) -> None:
    """Three hundred messages while executors are killed: check all of what happened against what may."""
    late_path = str(tmp_path / "late")
    chooser = random.Random(7)
    over = threading.Event()
    killed = 0

    def reap() -> None:
        nonlocal killed
        while not over.wait(0.7):
            pids = executor_pids()
            if pids and killed < 15:
                kill(chooser.choice(pids))
                killed += 1

    results: dict[int, Any] = {}
    reaper = threading.Thread(target=reap)
    reaper.start()
    try:
        for number in range(300):
            # Every third one is acknowledged late; durations differ so that kills hit all moments of a run.
            task, where = (tasks.at_least_once, late_path) if number % 3 == 0 else (tasks.once, path)
            results[number] = task.delay(where, number, chooser.choice([0, 0, 0.01, 0.15]))
        values = dict(zip(results, values_of(list(results.values())), strict=True))
    finally:
        over.set()
        reaper.join()

    assert killed >= 3
    early = Counter(one["number"] for one in records.read(path))
    late = Counter(one["number"] for one in records.read(late_path))
    failed = {number for number, value in values.items() if isinstance(value, WorkerLostError)}
    assert all(values[number] == number for number in results if number not in failed), "every other one succeeded"
    assert len(failed) <= killed, "a kill fails no more than the one message that was running"
    assert max(early.values()) == 1, "what is acknowledged early runs at most once"
    assert {n for n in results if n % 3 and n not in failed} <= early.keys(), "what succeeded did run"
    assert all(late[number] >= 1 for number in results if number % 3 == 0 and number not in failed)
    assert sample.app.client.call(questions.Pending()) == 0
