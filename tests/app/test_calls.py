"""Calling tasks: every way and every option."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import chain, signature
from celery.exceptions import NotRegistered, TaskRevokedError

from tests import sample
from tests.support import until

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60


def test_delay_and_apply_async() -> None:
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    assert sample.add.apply_async((1,), {"y": 5}).get(timeout=SECONDS) == 6
    assert sample.add.s(1, 2).delay().get(timeout=SECONDS) == 3
    assert signature("tests.sample.add", args=(2, 2), app=sample.app).apply_async().get(timeout=SECONDS) == 4


def test_apply_runs_in_the_caller() -> None:
    import os

    assert sample.request_of.apply().get()["pid"] == os.getpid()


def test_send_task_by_name() -> None:
    assert sample.app.send_task("tests.sample.add", (20, 22)).get(timeout=SECONDS) == 42


def test_an_unregistered_name_is_the_tasks_own_failure() -> None:
    with pytest.raises(NotRegistered, match=r"tests\.sample\.missing"):
        sample.app.send_task("tests.sample.missing").get(timeout=SECONDS)


def test_map_starmap_chunks() -> None:
    assert sample.identity.map([1, 2, 3]).delay().get(timeout=SECONDS) == [1, 2, 3]
    assert sample.add.starmap([(1, 2), (3, 4)]).delay().get(timeout=SECONDS) == [3, 7]
    chunks = sample.add.chunks(zip(range(10), range(10), strict=True), 4)
    assert chunks.delay().get(timeout=SECONDS) == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]


def test_countdown_and_eta() -> None:
    began = time.time()
    later = sample.add.apply_async((1, 1), countdown=1.0)
    eta = datetime.now(timezone.utc) + timedelta(seconds=1.0)
    other = sample.add.apply_async((2, 2), eta=eta)
    assert (later.get(timeout=SECONDS), other.get(timeout=SECONDS)) == (2, 4)
    assert time.time() - began >= 1.0


def test_expires_marks_the_task_revoked(tmp_path: Path) -> None:
    path = tmp_path / "ran"
    result = sample.touch.apply_async((str(path),), countdown=0.6, expires=0.2)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=SECONDS)
    assert not path.exists()
    assert sample.add.apply_async((1, 2), expires=60).get(timeout=SECONDS) == 3


def test_link_and_link_error(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    result = sample.add.apply_async((1, 2), link=sample.write.s(str(good)))
    assert result.get(timeout=SECONDS) == 3
    assert result.children[0].get(timeout=SECONDS) == str(good)
    assert good.read_text() == "3\n"
    failing = sample.fail.apply_async(("EWR", 1), link_error=sample.write_error.s(path=str(bad)))
    with pytest.raises(sample.ModelError):
        failing.get(timeout=SECONDS)
    until(lambda: bad.exists() and bad.read_text(), SECONDS)  # errbacks are called once the result is stored
    assert bad.read_text().startswith(f"{failing.id} ModelError")


def test_request_context() -> None:
    result = sample.request_of.apply_async(headers={"tenant": "north"}, queue="forecasts", priority=3)
    request = result.get(timeout=SECONDS)
    assert request["id"] == request["root_id"] == request["correlation_id"] == result.id
    assert request["parent_id"] is None
    assert request["retries"] == 0
    assert not request["called_directly"]
    assert request["delivery_info"]["routing_key"] == "forecasts"
    assert request["delivery_info"]["priority"] == 3
    assert request["headers"]["tenant"] == "north"
    assert request["hostname"].startswith("celery@")
    assert request["thread"], "time limits need the main thread"
    assert request["loaded"] == ["model"], "worker_process_init runs once per executor"


def test_ids_go_down_a_chain() -> None:
    result = chain(sample.identity.si(1), sample.request_of.si()).apply_async()
    request = result.get(timeout=SECONDS)
    assert request["root_id"] == result.parent.id == request["parent_id"]


def test_task_id_shadow_and_time_limits_travel() -> None:
    result = sample.request_of.apply_async(task_id="chosen-id", shadow="nick", time_limit=50, soft_time_limit=40)
    request = result.get(timeout=SECONDS)
    assert request["id"] == "chosen-id"
    assert list(request["timelimit"]) == [50, 40]


@pytest.mark.parametrize(
    "options", [{"serializer": "json"}, {"serializer": "pickle"}, {"serializer": "json", "compression": "zlib"}]
)
def test_a_chosen_serializer_is_used(options: dict[str, Any]) -> None:
    value = sample.identity.apply_async(((1, 2),), **options).get(timeout=SECONDS)
    # JSON knows no tuples; raycelery's own way of carrying arguments does.
    assert value == ([1, 2] if options["serializer"] == "json" else (1, 2))


def test_any_picklable_argument() -> None:
    values = [
        (1, 2),
        {3, 4},
        b"bytes",
        datetime(2020, 1, 1, tzinfo=timezone.utc),
        Path("x"),
        sample.ModelError("EWR", 1),
    ]
    for value in values[:-1]:
        assert sample.identity.delay(value).get(timeout=SECONDS) == value
    assert sample.identity.delay(values[-1]).get(timeout=SECONDS).zone == "EWR"
    assert sample.identity.delay(lambda: 7).get(timeout=SECONDS)() == 7


def test_ignore_result(tmp_path: Path) -> None:
    path = tmp_path / "ran"
    result = sample.ignored.delay(str(path))
    assert sample.identity.delay(1).get(timeout=SECONDS) == 1
    until(path.exists, SECONDS)
    assert result.state == "PENDING"
    assert sample.add.apply_async((1, 2), ignore_result=True).get() is None


def test_shared_and_class_based_tasks() -> None:
    sample.app.set_current()  # other tests of this process make applications too, and the last made is the current one
    assert sample.shared.delay(21).get(timeout=SECONDS) == 42
    _pid, count = sample.counter.delay(2).get(timeout=SECONDS)
    assert count >= 2


def test_eager_mode() -> None:
    import os

    sample.app.conf.task_always_eager = True
    try:
        assert sample.request_of.delay().get()["pid"] == os.getpid()
    finally:
        sample.app.conf.task_always_eager = False
