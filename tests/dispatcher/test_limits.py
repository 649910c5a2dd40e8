"""Limits and order under load: concurrency, rates, priorities, fairness, and how much may wait."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import NotRegistered
from celery.result import ResultSet

from raycelery.client import connection
from raycelery.dispatcher.store import Store
from raycelery.errors import QueueFull
from raycelery.protocol import questions
from raycelery.protocol.operations import ChordPart, Completion, StoreResult
from tests import records, sample, tasks, tuned
from tests.support import until

SECONDS = 60

pytestmark = pytest.mark.usefixtures("warm_ray")


@contextmanager
def held(app: Any, directory: Path, count: int = 1) -> Iterator[None]:
    """Keep that many executors of an application busy."""
    go = directory / "go"
    task = app.tasks["hold" if app is not sample.app else tasks.hold.name]
    holders = [task.delay(str(directory / f"held-{i}"), str(go)) for i in range(count)]
    until(lambda: all((directory / f"held-{i}").exists() for i in range(count)))
    try:
        yield
    finally:
        go.touch()
        join(holders, app)


def join(results: list[Any], app: Any = sample.app) -> list[Any]:
    return ResultSet(results, app=app).join(timeout=SECONDS)  # type: ignore[no-any-return]


# -- calls that fail before they run ----------------------------------------------------------------------------


def test_they_say_nothing_of_how_long_a_task_runs() -> None:
    app = tuned.brief
    for _ in range(17):
        with pytest.raises(NotRegistered):
            app.send_task("tuned.nobody_has_this").get(timeout=SECONDS)
    until(lambda: not app.client.call(questions.Stats())["executors"], say="its executors do not end")
    with pytest.raises(NotRegistered):
        app.send_task("tuned.nobody_has_this").get(timeout=SECONDS)


# -- concurrency ------------------------------------------------------------------------------------------------


def test_of_a_task(path: str) -> None:
    join([tasks.narrow_span.delay(path) for _ in range(40)])
    assert records.overlap(records.read(path)) == 2


def test_of_a_task_in_several_queues(path: str) -> None:
    join([tasks.narrow_span.apply_async((path,), queue=f"queue-{i % 3}") for i in range(30)])
    assert records.overlap(records.read(path)) == 2


def test_a_limited_task_does_not_hold_others_back(tmp_path: Path, path: str) -> None:
    go = tmp_path / "go"
    limited = [tasks.narrow_hold.delay(str(tmp_path / f"held-{i}"), str(go)) for i in range(6)]
    join([tasks.span.delay(path) for _ in range(20)])
    assert sum(one.exists() for one in tmp_path.glob("held-?")) <= 2
    go.touch()
    join(limited)


def test_of_a_queue(path: str) -> None:
    span = tuned.queued.tasks["span"]
    narrow = [span.apply_async((path,), {"queue": "narrow"}, queue="narrow") for _ in range(15)]
    others = [span.apply_async((path,), {"queue": "other"}) for _ in range(30)]
    join(narrow + others, tuned.queued)
    spans = records.read(path)
    assert records.overlap([one for one in spans if one["queue"] == "narrow"]) == 1
    assert records.overlap([one for one in spans if one["queue"] == "other"]) > 1


def test_of_an_application(path: str) -> None:
    join([tuned.bounded.tasks["span"].delay(path) for _ in range(30)], tuned.bounded)
    assert records.overlap(records.read(path)) == 2


def test_by_cpus_of_a_queue(path: str) -> None:
    span = tuned.queued.tasks["span"]
    join([span.apply_async((path, 0.2), queue="light") for _ in range(40)], tuned.queued)
    assert 4 < records.overlap(records.read(path)) <= 8


def test_by_cpus_of_a_call(path: str) -> None:
    join([tasks.span.apply_async((path, 0.1), num_cpus=2) for _ in range(12)])
    assert records.overlap(records.read(path)) <= 2


# -- rates ------------------------------------------------------------------------------------------------------


def assert_rate(path: str, per_second: float) -> None:
    """Check that runs began no faster; the first and the last are ``n - 1`` steps apart."""
    begun = sorted(one["begun"] for one in records.read(path))
    # A run may begin a little late and the next one in time.
    assert begun[-1] - begun[0] >= (len(begun) - 1) / per_second - 0.3


def test_rate_limit_of_a_task(path: str) -> None:
    join([tasks.rated_span.delay(path) for _ in range(20)])
    assert_rate(path, 10)


def test_rate_limit_by_control(path: str) -> None:
    sample.app.control.rate_limit(tasks.span.name, "5/s")
    try:
        results = [tasks.span.delay(path, 0.0) for _ in range(100)]
        records.wait_for(path, 5)
        sample.app.control.rate_limit(tasks.span.name, "20/s")
        records.wait_for(path, 15)
        assert_rate(path, 20)
        sample.app.control.rate_limit(tasks.span.name, 0)
        join(results)
    finally:
        sample.app.control.rate_limit(tasks.span.name, 0)


def test_a_rated_task_does_not_hold_others_back(path: str) -> None:
    control = sample.app.control
    control.rate_limit(tasks.span.name, "1/h")
    try:
        rated = [tasks.span.delay(path, 0.0) for _ in range(3)]
        join([sample.add.delay(i, 1) for i in range(100)])
        records.wait_for(path, 1)
        assert len(records.read(path)) == 1
    finally:
        control.rate_limit(tasks.span.name, 0)
    join(rated)


# -- order ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("app", "order"), [(tuned.redis_like, [0, 3, 6, 9]), (tuned.amqp_like, [9, 6, 3, 0])])
def test_priorities_as_the_broker_has_them(app: Any, order: list[int], tmp_path: Path, path: str) -> None:
    with held(app, tmp_path):
        results = [
            app.tasks["span"].apply_async((path, 0.0), {"priority": priority}, priority=priority)
            for priority in (6, 0, 9, 3) * 5
        ]
    join(results, app)
    assert [one["priority"] for one in records.read(path)] == [priority for priority in order for _ in range(5)]


def test_messages_of_equal_priority_keep_their_order(tmp_path: Path, path: str) -> None:
    app = tuned.redis_like
    with held(app, tmp_path):
        results = [app.tasks["span"].delay(path, 0.0, number=i) for i in range(50)]
    join(results, app)
    assert [one["number"] for one in records.read(path)] == list(range(50))


def test_queues_take_turns(tmp_path: Path, path: str) -> None:
    app = tuned.redis_like
    with held(app, tmp_path):
        many = [app.tasks["span"].apply_async((path, 0.0), {"queue": "many"}, queue="many") for _ in range(100)]
        few = [app.tasks["span"].apply_async((path, 0.0), {"queue": "few"}, queue="few") for _ in range(5)]
    join(many + few, app)
    queues = [one["queue"] for one in records.read(path)]
    assert max(i for i, queue in enumerate(queues) if queue == "few") < 20


def test_long_tasks_do_not_delay_short_ones(tmp_path: Path) -> None:
    with held(sample.app, tmp_path, 3):
        assert join([sample.add.delay(i, 1) for i in range(300)]) == list(range(1, 301))


def test_a_long_run_of_a_short_task_does_not_delay_those_behind_it(tmp_path: Path, path: str) -> None:
    join([tasks.usually_short.delay(path) for _ in range(40)])
    go = tmp_path / "go"
    results = []
    for i in range(200):
        results.append(tasks.usually_short.delay(path, str(go) if i % 100 == 50 else None))
    slow = [results[50], results[150]]
    join([result for result in results if result not in slow])
    assert not any(result.ready() for result in slow)
    go.touch()
    join(slow)


# -- how much may wait ------------------------------------------------------------------------------------------


def test_a_full_queue_raises_after_the_timeout(tmp_path: Path) -> None:
    submitted = []
    with held(tuned.full, tmp_path):
        with pytest.raises(QueueFull, match="ray_max_pending"):
            submitted.extend(tuned.full.tasks["span"].delay("/dev/null", 0.0) for _ in range(100_000))
        assert 100 <= len(submitted) < 250, "a little more is on the way"
        # What was refused is not in the queue: calling again makes no second one.
        assert tuned.full.control.purge() == len(submitted)


def test_a_full_queue_makes_producers_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.1)
    app = tuned.patient
    results: list[Any] = []

    def submit() -> None:
        for _ in range(8000):
            results.append(app.tasks["span"].delay("/dev/null", 0.0))

    producer = threading.Thread(target=submit)
    with held(app, tmp_path, 4):
        producer.start()
        counts: list[int] = [-1]

        def stands_still() -> bool:
            counts.append(app.client.call(questions.Pending()))
            return counts[-1] == counts[-2] >= 100

        until(stands_still, every=0.5)
        assert producer.is_alive()
        assert len(results) < 300
        assert "the queue is full (ray_max_pending): calls wait" in caplog.text
    producer.join(SECONDS)
    assert len(join(results, app)) == 8000


def test_what_messages_carry_is_bounded_too(tmp_path: Path) -> None:
    app = tuned.heavy
    with held(app, tmp_path):
        submitted = []
        with pytest.raises(QueueFull, match="ray_max_pending_bytes"):
            submitted.extend(app.tasks["span"].delay("/dev/null" + "/" * 50_000, 0.0) for _ in range(1_000))
        # 1 MB may wait; frames of up to 256 kB are on the way.
        assert 20 <= len(submitted) < 60
        assert app.control.purge() == len(submitted)


def test_parts_of_chords_and_values_count_as_results() -> None:
    store = Store(100_000)
    for number in range(50):
        store.set_meta(StoreResult(str(number), "SUCCESS", bytes(1_000), (), 60.0, True), 0.0)
    assert len(store) == 50
    for number in range(90):
        store.chord_part(
            ChordPart("group", str(number), number, bytes(1_000), 100, 60.0, Completion("", "group", b"", b"")), 0.0
        )
    assert store.bytes > 90_000
    assert len(store) == 1, "results give way"
    for number in range(90, 100):
        complete = store.chord_part(
            ChordPart("group", str(number), number, bytes(1_000), 100, 60.0, Completion("", "group", b"", b"")), 0.0
        )
    assert complete is not None
    assert len(complete[1]) == 100, "chords that run do not"
    assert store.bytes < 10_000
    for number in range(1_000):
        store.set(b"%d" % number, bytes(1_000), 60.0, 0.0)
    assert store.bytes <= 100_000
    assert store.get(b"999") is not None
    assert store.get(b"0") is None
    store.expire(61.0)
    assert store.bytes == 0


def test_a_state_that_is_written_again_and_again_leaves_nothing() -> None:
    store = Store(1e9)
    store.set_meta(StoreResult("one", "PROGRESS", b"", (), 86_400.0, False), 0.0)
    tracemalloc.start()
    try:
        for number in range(50_000):
            store.set_meta(StoreResult("one", "PROGRESS", b"", (), 86_400.0, False), float(number))
            store.set_meta(StoreResult("two", "PROGRESS", b"", (), 86_400.0, False), float(number))
            store.forget("two")
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
