"""Revocation: before a task runs, while it runs, by id, by group, by stamps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import group, uuid
from celery.exceptions import TaskRevokedError

from raycelery.protocol import questions
from tests import records, sample, signalled, tasks
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    """Hold all CPUs until the returned function is called, so that what is submitted waits."""
    gate = tmp_path / "gate"
    held = [tasks.hold.delay(str(tmp_path / f"held-{i}"), str(gate)) for i in range(4)]
    until(lambda: all((tmp_path / f"held-{i}").exists() for i in range(4)))

    def release() -> None:
        gate.touch()
        for result in held:
            result.get(timeout=SECONDS)

    yield release
    release()


def assert_revoked(result: Any) -> None:
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert result.state == "REVOKED"


def test_a_waiting_task_is_marked_at_once_and_never_runs(gate: Any, path: str) -> None:
    result = sample.touch.delay(path)
    result.revoke()
    assert_revoked(result)
    gate()
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    assert not Path(path).exists()


def test_several_by_control(gate: Any, path: str) -> None:
    results = [sample.touch.delay(path) for _ in range(5)]
    sample.app.control.revoke([result.id for result in results[:4]])
    for result in results[:4]:
        assert_revoked(result)
    gate()
    results[4].get(timeout=SECONDS)
    assert len(Path(path).read_text().splitlines()) == 1


def test_a_task_that_waits_for_its_time(path: str) -> None:
    result = sample.touch.apply_async((path,), countdown=300)
    result.revoke()
    assert_revoked(result)
    assert not Path(path).exists()
    assert sample.app.client.call(questions.Stats())["scheduled"] == 0


def test_a_running_task_goes_on_without_terminate(tmp_path: Path) -> None:
    held, go = tmp_path / "held", tmp_path / "go"
    result = tasks.hold.delay(str(held), str(go))
    until(held.exists)
    result.revoke()
    go.touch()
    assert result.get(timeout=SECONDS) == "released"


def test_a_running_task_is_terminated_and_its_executor_replaced(tmp_path: Path) -> None:
    held, go, errors = tmp_path / "held", tmp_path / "go", tmp_path / "errors"
    result = tasks.hold.apply_async((str(held), str(go)), link_error=sample.write_error.s(path=str(errors)))
    pid = int(until(lambda: held.exists() and held.read_text()))
    result.revoke(terminate=True)
    assert_revoked(result)
    assert [sample.add.delay(i, 1).get(timeout=SECONDS) for i in range(4)] == [1, 2, 3, 4]
    until(lambda: pid not in sample.app.client.call(questions.Stats())["executor_pids"].values())


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL", "SIGINT", 9])
def test_terminate_with_any_signal(tmp_path: Path, signal: Any) -> None:
    held, go = tmp_path / "held", tmp_path / "go"
    result = tasks.hold.delay(str(held), str(go))
    until(held.exists)
    result.revoke(terminate=True, signal=signal)
    assert_revoked(result)


def test_terminate_spares_what_waits_behind(tmp_path: Path, path: str) -> None:
    ran = [tasks.once.delay(path, i) for i in range(40)]
    held, go = tmp_path / "held", tmp_path / "go"
    result = tasks.hold.delay(str(held), str(go))
    ran += [tasks.once.delay(path, i) for i in range(40, 200)]
    until(held.exists)
    result.revoke(terminate=True)
    assert_revoked(result)
    assert [one.get(timeout=SECONDS) for one in ran] == list(range(200))
    assert sorted(one["number"] for one in records.read(path)) == list(range(200))


def test_control_terminate(tmp_path: Path) -> None:
    held, go = tmp_path / "held", tmp_path / "go"
    result = tasks.hold.delay(str(held), str(go))
    until(held.exists)
    sample.app.control.terminate(result.id)
    assert_revoked(result)


def test_a_group(gate: Any, path: str) -> None:
    result = group(sample.touch.s(path) for _ in range(4)).apply_async()
    result.revoke()
    for part in result.results:
        assert_revoked(part)
    gate()
    assert not Path(path).exists()


def test_before_it_is_submitted(path: str) -> None:
    task_id = uuid()
    sample.app.control.revoke(task_id)
    result = sample.touch.apply_async((path,), task_id=task_id)
    assert_revoked(result)
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    assert not Path(path).exists()


def test_a_task_that_has_ended_keeps_its_result() -> None:
    result = sample.add.delay(1, 2)
    assert result.get(timeout=SECONDS) == 3
    result.revoke(terminate=True)
    assert sample.add.delay(2, 2).get(timeout=SECONDS) == 4
    assert sample.app.AsyncResult(result.id).state == "SUCCESS"


def test_by_stamped_headers(gate: Any, path: str) -> None:
    def stamped(customer: str) -> Any:
        signature = sample.touch.si(path)
        signature.stamp(customer=customer)
        return signature.apply_async()

    mine, other, later = stamped("acme"), stamped("globex"), stamped("initech")
    sample.app.control.revoke_by_stamped_headers({"customer": ["acme", "initech"]})
    assert_revoked(mine)
    assert_revoked(later)
    after = stamped("acme")
    assert_revoked(after)
    gate()
    other.get(timeout=SECONDS)
    assert len(Path(path).read_text().splitlines()) == 1


def test_by_stamped_headers_while_it_runs(tmp_path: Path) -> None:
    held, go = tmp_path / "held", tmp_path / "go"
    signature = tasks.hold.si(str(held), str(go))
    signature.stamp(campaign="summer")
    result = signature.apply_async()
    until(held.exists)
    result.revoke_by_stamped_headers({"campaign": "summer"}, terminate=True)
    assert_revoked(result)


def test_a_revoked_part_fails_its_chord(gate: Any) -> None:
    from celery import chord
    from celery.exceptions import ChordError

    result = chord([sample.add.s(1, 1), sample.add.s(2, 2)], sample.tsum.s()).apply_async()
    result.parent.results[1].revoke()
    gate()
    assert isinstance(result.get(timeout=SECONDS, propagate=False), ChordError)


def test_the_signal_is_sent_in_an_executor(tmp_path: Path) -> None:
    waiting = signalled.add.apply_async((1, 2), countdown=300)
    waiting.revoke()
    assert_revoked(waiting)
    running = signalled.nap.delay(300)
    until(
        lambda: any(
            one["signal"] == "task_prerun" and one["id"] == running.id for one in records.read(signalled.RECORDS)
        )
    )
    running.revoke(terminate=True)
    assert_revoked(running)
    expired = signalled.add.apply_async((1, 2), countdown=0.5, expires=0.1)
    assert_revoked(expired)

    def told() -> dict[str, tuple[bool, bool]]:
        found = [one for one in records.read(signalled.RECORDS) if one["signal"] == "task_revoked"]
        return {one["id"]: (one["terminated"], one["expired"]) for one in found}

    until(lambda: len(told()) >= 3)
    assert told() == {waiting.id: (False, False), running.id: (True, False), expired.id: (False, True)}
