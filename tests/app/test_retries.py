"""Retries, rejections and redeliveries: Celery decides, the dispatcher delivers again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import celery
import pytest
from celery.exceptions import MaxRetriesExceededError, Reject, TaskRevokedError

from raycelery.protocol import questions
from tests import records, sample, tasks
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def test_retry_until_it_succeeds() -> None:
    result = sample.retry_until.delay(3)
    assert result.get(timeout=SECONDS) == 3
    assert result.state == "SUCCESS"


def test_the_last_retry_raises_the_original_error(path: str) -> None:
    result = tasks.retry_forever.delay(path)
    with pytest.raises(ConnectionResetError, match="no model server"):
        result.get(timeout=SECONDS)
    assert [one["retries"] for one in records.read(path)] == [0, 1, 2]


def test_without_an_error_the_last_retry_says_so() -> None:
    result = tasks.retry_for_no_reason.delay()
    with pytest.raises(MaxRetriesExceededError):
        result.get(timeout=SECONDS)


def test_retry_may_change_the_arguments_and_keeps_the_id(path: str) -> None:
    result = tasks.retry_with.delay(path, 1)
    assert list(result.get(timeout=SECONDS)) == [2, "second"]
    first, second = records.read(path)
    assert first["id"] == second["id"] == result.id
    assert second["time"] - first["time"] >= 0.2


def test_retry_may_go_to_another_queue() -> None:
    assert tasks.retry_elsewhere.delay().get(timeout=SECONDS) == "second-try"


def test_retry_state_is_seen_while_it_waits(path: str) -> None:
    result = tasks.retry_slowly.delay(path)
    records.wait_for(path, 1)
    until(lambda: result.state == "RETRY")
    assert result.info is None or "Retry" in repr(result.info)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)


def test_a_revoked_task_is_retried_no_more(path: str) -> None:
    result = tasks.retry_slowly.delay(path)
    records.wait_for(path, 2)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert result.state == "REVOKED"
    ran = len(records.read(path))
    # The retry after the revocation would have been the next to run.
    sample.add.apply_async((1, 1), countdown=0.8).get(timeout=SECONDS)
    assert len(records.read(path)) == ran


def test_autoretry() -> None:
    assert sample.autoretry.delay(2).get(timeout=SECONDS) == 2
    with pytest.raises(sample.ModelError):
        sample.autoretry.delay(3).get(timeout=SECONDS)


@pytest.mark.parametrize("kind", ["FileNotFoundError", "ValueError"])
def test_autoretry_leaves_other_errors_alone(path: str, kind: str) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match="as asked"):
        tasks.backing_off.delay(path, kind).get(timeout=SECONDS)
    assert len(records.read(path)) == 1


def test_autoretry_backs_off(path: str) -> None:
    with pytest.raises(OSError, match="as asked"):
        tasks.backing_off.delay(path).get(timeout=SECONDS)
    seen = records.read(path)
    assert [one["retries"] for one in seen] == [0, 1, 2, 3]
    etas = [datetime.fromisoformat(one["eta"]) for one in seen[1:]]
    # 2, then 4 and 8 cut to retry_backoff_max; each counts from when the attempt before it failed.
    assert (etas[1] - etas[0]).total_seconds() >= 3
    assert (etas[2] - etas[1]).total_seconds() >= 3


def test_autoretry_with_jitter() -> None:
    assert tasks.jittery.delay(2).get(timeout=SECONDS) == 2


def test_retry_within_chain_and_chord() -> None:
    assert (sample.retry_until.s(2) | sample.add.s(10)).delay().get(timeout=SECONDS) == 12
    from celery import chord

    header = [sample.retry_until.s(1), sample.add.s(1, 1), sample.autoretry.s(1)]
    assert chord(header, sample.tsum.s()).delay().get(timeout=SECONDS) == 4


def test_a_failed_retry_calls_errbacks_once(path: str, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    result = tasks.retry_forever.apply_async((path,), link_error=sample.write_error.s(path=str(errors)))
    with pytest.raises(ConnectionResetError):
        result.get(timeout=SECONDS)
    until(lambda: errors.exists() and errors.read_text())
    sample.app.client.call(questions.Drained())
    assert errors.read_text().splitlines() == [f"{result.id} ConnectionResetError no model server"]


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="Celery records a failure since 5.7")
def test_reject_without_requeue_is_a_failure() -> None:
    result = sample.rejecting.delay()
    with pytest.raises(Reject):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"


def test_reject_with_requeue_is_delivered_again(tmp_path: Path, path: str) -> None:
    assert sample.reject_once.delay(str(tmp_path / "once")).get(timeout=SECONDS) is True
    assert tasks.reject_times.delay(path, 5).get(timeout=SECONDS) == [False] + [True] * 5


def test_a_message_that_is_rejected_often_keeps_nobody_else_from_running(path: str) -> None:
    rejected = tasks.reject_times.delay(path, 200)
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    assert len(rejected.get(timeout=SECONDS)) == 201


def test_ignore_leaves_the_state_as_the_task_set_it() -> None:
    result = tasks.ignoring_after_state.delay()
    plain = sample.ignoring.delay()
    until(lambda: result.state == "MINE")
    sample.app.client.call(questions.Drained())
    assert result.state == "MINE"
    assert result.info == {"kept": True}
    assert plain.state == "PENDING"


def test_late_acknowledgement_runs_again_when_its_executor_dies(tmp_path: Path) -> None:
    assert sample.die_once.delay(str(tmp_path / "died")).get(timeout=SECONDS) == "survived"
