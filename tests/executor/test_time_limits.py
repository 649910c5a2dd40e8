"""Time limits: soft ones are raised inside the task, hard ones end its process and only it."""

from __future__ import annotations

from pathlib import Path

import celery
import pytest
from celery import chord, group
from celery.exceptions import ChordError, SoftTimeLimitExceeded, TimeLimitExceeded

from raycelery.protocol import questions
from tests import records, sample, tasks, tuned
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


def test_a_soft_limit_can_be_caught() -> None:
    assert sample.soft_limited.delay().get(timeout=SECONDS) == "cleaned up"


def test_a_soft_limit_that_is_not_caught_is_the_tasks_failure() -> None:
    result = tasks.soft_uncaught.delay()
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    assert "time.sleep(60)" in result.traceback


def test_a_soft_limit_leaves_the_executor_alive() -> None:
    before = set(sample.app.client.call(questions.Stats())["executor_pids"].values())
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.soft_uncaught.delay().get(timeout=SECONDS)
    assert before <= set(sample.app.client.call(questions.Stats())["executor_pids"].values())
    assert sample.nap.delay(0.5).get(timeout=SECONDS) == 0.5, "no timer is left behind"


def test_a_soft_limit_can_be_retried(path: str) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        tasks.soft_retried.delay(path).get(timeout=SECONDS)
    assert len(records.read(path)) == 2


def test_a_hard_limit_ends_the_executor_and_the_next_task_runs(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    result = sample.hard_limited.apply_async(link_error=sample.write_error.s(path=str(errors)))
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    text = until(lambda: errors.exists() and errors.read_text())
    assert text.startswith(f"{result.id} TimeLimitExceeded")


def test_hard_limits_of_many_at_once() -> None:
    limited = group(sample.hard_limited.s() for _ in range(6)).apply_async()
    others = group(sample.add.s(i, 1) for i in range(20)).apply_async()
    assert others.get(timeout=SECONDS) == list(range(1, 21))
    values = limited.get(timeout=SECONDS, propagate=False)
    assert [type(value) for value in values] == [TimeLimitExceeded] * 6


def test_limits_of_a_call(path: str) -> None:
    result = tasks.stubborn.apply_async((path,), soft_time_limit=0.3, time_limit=1.0)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=SECONDS)
    assert [one.get("soft") for one in records.read(path)] == [None, True]


def test_a_calls_limit_overrides_the_tasks() -> None:
    hurried = sample.hard_limited.apply_async(time_limit=0.2)
    with pytest.raises(TimeLimitExceeded, match=r"0\.2"):
        hurried.get(timeout=SECONDS)


def test_limits_from_the_configuration() -> None:
    assert tuned.caught.delay().get(timeout=SECONDS) == "caught"
    with pytest.raises(TimeLimitExceeded):
        tuned.hard.delay().get(timeout=SECONDS)
    assert tuned.its_own.delay().get(timeout=SECONDS) == "slept"


def test_waiting_for_its_turn_does_not_count() -> None:
    occupied = [sample.nap.delay(1.0) for _ in range(8)]
    limited = [sample.nap.apply_async((0.1,), time_limit=5) for _ in range(4)]
    assert [result.get(timeout=SECONDS) for result in limited] == [0.1] * 4
    assert [result.get(timeout=SECONDS) for result in occupied] == [1.0] * 8


@pytest.mark.skipif(celery.VERSION < (5, 5), reason="Celery puts the message back since 5.5")
def test_late_acknowledgement_without_acks_on_timeout_runs_again(path: str) -> None:
    result = tasks.late_and_limited.delay(path)
    # Celery records the timeout as a failure and puts the message back: the second run succeeds.
    records.wait_for(path, 2)
    until(lambda: result.state == "SUCCESS")


def test_a_limit_in_a_chord_resolves_the_chord() -> None:
    result = chord([sample.add.s(1, 1), sample.hard_limited.s()], sample.tsum.s()).apply_async()
    with pytest.raises(ChordError, match="TimeLimitExceeded"):
        result.get(timeout=SECONDS, follow_parents=False)
