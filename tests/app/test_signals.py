"""Signals, handlers and loggers: each is called where Celery calls it, once, with what Celery gives it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import NotRegistered, Retry, TimeLimitExceeded

from raycelery.protocol import questions
from tests import records, sample, signalled
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")
BEGIN = ["before_start", "__call__"]


@pytest.fixture(scope="module", autouse=True)
def _records() -> Iterator[None]:
    Path(signalled.RECORDS).unlink(missing_ok=True)
    yield
    Path(signalled.RECORDS).unlink(missing_ok=True)


def signals_of(task_id: str, last: str = "task_postrun") -> list[dict[str, Any]]:
    """Return what was recorded of a task once ``last`` is among it."""

    def found() -> list[dict[str, Any]]:
        mine = [one for one in records.read(signalled.RECORDS) if one["id"] == task_id]
        return mine if any(one["signal"] == last for one in mine) else []

    return list(until(found, say=lambda: f"no {last} in {records.read(signalled.RECORDS)}"))


def test_of_a_task_that_succeeds() -> None:
    result = signalled.add.delay(1, 2)
    assert result.get(timeout=SECONDS) == 3
    told = signals_of(result.id)
    here = [one["signal"] for one in told if one["pid"] == os.getpid()]
    there = [one["signal"] for one in told if one["pid"] != os.getpid()]
    assert here == ["before_task_publish", "after_task_publish"]
    assert there == ["task_received", "task_prerun", "task_success", "task_postrun"]
    by_name = {one["signal"]: one for one in told}
    assert by_name["before_task_publish"]["arguments"] == 2
    assert by_name["task_prerun"]["args"] == [1, 2]
    assert by_name["task_success"]["result"] == 3
    assert by_name["task_postrun"]["state"] == "SUCCESS"


def test_headers_changed_before_publishing_reach_the_request() -> None:
    result = signalled.trace_of.delay()
    assert result.get(timeout=SECONDS) == "trace of tests.signalled.trace_of"
    told = {one["signal"]: one for one in signals_of(result.id)}
    assert told["after_task_publish"]["trace"] == "trace of tests.signalled.trace_of"


def test_of_a_task_that_fails() -> None:
    result = signalled.fail.delay()
    with pytest.raises(ValueError, match="as asked"):
        result.get(timeout=SECONDS)
    told = [one for one in signals_of(result.id) if one["pid"] != os.getpid()]
    assert [one["signal"] for one in told] == ["task_received", "task_prerun", "task_failure", "task_postrun"]
    assert told[2]["exception"] == "ValueError"
    assert told[2]["traceback"]
    assert told[3]["state"] == "FAILURE"


def test_of_a_task_that_is_retried() -> None:
    result = signalled.retry_once.delay()
    assert result.get(timeout=SECONDS) == "second"
    signals_of(result.id, "task_success")
    told = signals_of(result.id)
    counts = Counter(one["signal"] for one in told)
    assert counts["before_task_publish"] == counts["task_prerun"] == 2
    assert counts["task_retry"] == counts["task_success"] == 1
    retry = next(one for one in told if one["signal"] == "task_retry")
    assert retry["reason"] == Retry.__name__
    second = [one for one in told if one["signal"] == "before_task_publish"][1]
    assert second["pid"] == retry["pid"], "the retry is published by the executor"


def test_of_a_task_that_exceeds_its_limit() -> None:
    result = signalled.limited.delay()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=SECONDS)
    told = [one for one in signals_of(result.id, "task_failure") if one["signal"] == "task_failure"]
    assert [one["exception"] for one in told] == ["TimeLimitExceeded"]


def test_of_a_task_that_nobody_knows() -> None:
    result = signalled.app.send_task("tests.signalled.missing")
    with pytest.raises(NotRegistered):
        result.get(timeout=SECONDS)
    told = [one for one in signals_of(result.id, "task_unknown") if one["signal"] == "task_unknown"]
    assert [one["name"] for one in told] == ["tests.signalled.missing"]


def test_processes_are_initialised_and_shut_down_once() -> None:
    signalled.app.client.call(questions.Drained())
    [signalled.add.delay(i, 1).get(timeout=SECONDS) for i in range(5)]

    def of(name: str) -> Counter[int]:
        return Counter(one["pid"] for one in records.read(signalled.RECORDS) if one["signal"] == name)

    ran = {one["pid"] for one in records.read(signalled.RECORDS) if one["signal"] == "task_prerun"}
    assert ran <= of("worker_process_init").keys()
    assert set(of("worker_process_init").values()) == {1}
    assert os.getpid() not in of("worker_process_init")
    # They end once they are idle for ray_idle_seconds; the one that was killed for its time limit says nothing.
    until(lambda: not signalled.app.client.call(questions.Stats())["executor_pids"])
    until(lambda: len(of("worker_process_shutdown")) >= len(of("worker_process_init")) - 1)
    assert set(of("worker_process_shutdown").values()) == {1}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("well", [*BEGIN, "on_success well", "after_return SUCCESS"]),
        ("fail", [*BEGIN, "on_failure ValueError('as asked')", "after_return FAILURE"]),
        ("retry", [*BEGIN, "on_retry", *BEGIN, "on_success retry", "after_return SUCCESS"]),
    ],
)
def test_handlers_of_a_base_class(tmp_path: Path, how: str, expected: list[str]) -> None:
    path = tmp_path / "handlers"
    result = sample.recorded.apply_async((how,), headers={"path": str(path)})
    result.get(timeout=SECONDS, propagate=False)
    until(lambda: "after_return" in path.read_text())
    assert path.read_text().splitlines() == expected


def test_what_tasks_log_and_print_reaches_the_driver(capfd: pytest.CaptureFixture[str]) -> None:
    sample.chatty.delay("a-word-that-is-printed").get(timeout=SECONDS)
    seen = ""

    def read() -> bool:
        nonlocal seen
        seen += "".join(capfd.readouterr())
        return "printed a-word" in seen and "logged a-word" in seen

    until(read, say=lambda: f"not in {seen!r}")
    line = next(line for line in seen.splitlines() if "logged a-word" in line)
    assert "tests.sample.chatty" in line, "get_task_logger's lines name the task"
