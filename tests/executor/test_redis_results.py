"""Results that go to Redis: what Celery's own backend does, in one round trip."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
import redis
from celery import chord, states

from raycelery import Celery
from raycelery.protocol import questions
from tests import failing
from tests.support import RaySession

SECONDS = 60

stored = Celery("stored")
stored.conf.ray_keep_result_backend = True
stored.conf.result_expires = 1000


@stored.task
def double(number: int) -> int:
    return 2 * number


@stored.task(bind=True)
def steps(self, count: int) -> int:  # type: ignore[no-untyped-def]
    for done in range(count):
        self.update_state(state="PROGRESS", meta={"done": done})
    return count


@stored.task(track_started=True)
def fail() -> None:
    raise ValueError("no good")


@stored.task
def fail_hard(kind: str) -> None:
    raise asyncio.CancelledError("by hand") if kind == "cancelled" else failing.hard_error(kind)


@stored.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@pytest.fixture
def server(ray_session: RaySession, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", redis_url)  # executors have it too
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


def key(result: object) -> str:
    return f"celery-task-meta-{result}"


def test_results_states_and_chords_are_stored_as_ever(server: redis.Redis) -> None:
    done = double.delay(4)
    assert done.get(timeout=SECONDS) == 8
    assert 900 < server.ttl(key(done)) <= 1000
    with pytest.raises(ValueError, match="no good"):
        fail.delay().get(timeout=SECONDS)
    # What is there is written over, as long as it is no success.
    seen = steps.delay(5)
    assert seen.get(timeout=SECONDS) == 5
    assert seen.state == states.SUCCESS
    assert chord([double.s(i) for i in range(5)], total.s()).delay().get(timeout=SECONDS) == 20


def test_errors_are_stored_as_celery_stores_them(server: redis.Redis) -> None:
    """For readers that have nothing but Celery, which puts a base in the place of what plain pickle cannot carry."""
    unknown = stored.send_task("no.such.task")
    results = {kind: fail_hard.delay(kind) for kind in ("cancelled", "two arguments")}
    for result in (unknown, *results.values()):
        assert isinstance(result.get(timeout=SECONDS, propagate=False), BaseException)
    found = {kind: json.loads(server.get(key(result)))["result"] for kind, result in results.items()}
    assert found["cancelled"] == {
        "exc_type": "CancelledError", "exc_message": ["by hand"], "exc_module": "asyncio.exceptions"
    }  # fmt: skip
    assert found["two arguments"] == {
        "exc_type": "ValueError", "exc_message": ["EWR failed with 7"], "exc_module": "builtins"
    }  # fmt: skip
    assert json.loads(server.get(key(unknown)))["result"] == {
        "exc_type": "NotRegistered", "exc_message": ["no.such.task"], "exc_module": "celery.exceptions"
    }  # fmt: skip


def test_a_success_is_never_written_over(server: redis.Redis) -> None:
    first = double.apply_async((4,), task_id="twice")
    assert first.get(timeout=SECONDS) == 8
    before = server.get(key(first))
    for again, args in ((double, (5,)), (fail, ())):
        again.apply_async(args, task_id="twice")
        stored.client.call(questions.Drained())
        assert server.get(key(first)) == before


def test_a_result_takes_one_round_trip(server: redis.Redis) -> None:
    double.delay(0).get(timeout=SECONDS)
    server.config_resetstat()
    results = [double.apply_async((i,)) for i in range(50)]
    assert [result.get(timeout=SECONDS) for result in results] == [2 * i for i in range(50)]
    calls = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in server.info("commandstats").items()}
    assert calls.get("evalsha", 0) == 50
    assert "multi" not in calls
