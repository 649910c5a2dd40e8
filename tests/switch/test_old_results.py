"""Ids from before a project ran on Ray: they are looked up in its result backend, which is only read."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import celery
import pytest
import redis

from raycelery import Celery
from tests import support
from tests.support import RaySession


class OutOfStockError(Exception):
    """An error of the project's own."""


def switched(url: str, **settings: Any) -> Celery:
    """The project as it is now; all share one dispatcher."""
    app = Celery("switched", backend=url, set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.fixture
def before(redis_url: str) -> Iterator[celery.Celery]:
    """The project as it was."""
    app = celery.Celery("switched", backend=redis_url, set_as_current=False)
    yield app
    # Its results would unsubscribe when they are collected, be it after the end of Redis.
    app.backend.result_consumer.subscribed_to.clear()


@pytest.fixture
def app(redis_url: str, ray_session: RaySession) -> Celery:
    return switched(redis_url)


@pytest.fixture
def reads(redis_url: str) -> Iterator[Any]:
    """How often Redis was asked for a value."""
    with redis.Redis.from_url(redis_url) as client:
        yield lambda: int(client.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"])


def stored(before: celery.Celery, value: Any, state: str = "SUCCESS") -> str:
    task_id = str(uuid.uuid4())
    before.backend.store_result(task_id, value, state)
    return task_id


def test_what_ended_before_is_read(app: Celery, before: celery.Celery) -> None:
    ended, failed = stored(before, {"zone": "EWR"}), stored(before, OutOfStockError("no 7"), "FAILURE")
    running = stored(before, {"done": 3}, "PROGRESS")
    result = app.AsyncResult(ended)
    assert (result.state, result.ready(), result.get(timeout=10)) == ("SUCCESS", True, {"zone": "EWR"})
    assert app.AsyncResult(ended).get(timeout=10) == {"zone": "EWR"}
    with pytest.raises(OutOfStockError, match="no 7"):
        app.AsyncResult(failed).get(timeout=10)
    assert app.AsyncResult(failed).state == "FAILURE"
    assert (app.AsyncResult(running).state, app.AsyncResult(running).info) == ("PROGRESS", {"done": 3})


def test_a_group_that_was_saved_before_is_restored(app: Celery, before: celery.Celery) -> None:
    group = before.GroupResult("g" + uuid.uuid4().hex, [before.AsyncResult(stored(before, n)) for n in range(3)])
    group.save()
    restored = app.GroupResult.restore(group.id)
    assert restored.ready()
    assert restored.get(timeout=10) == [0, 1, 2]
    assert restored.join(timeout=10) == [0, 1, 2]
    assert app.GroupResult.restore("unknown") is None


def test_a_task_that_still_runs_on_a_worker_is_waited_for(app: Celery, before: celery.Celery) -> None:
    late, never = str(uuid.uuid4()), str(uuid.uuid4())
    with pytest.raises(celery.exceptions.TimeoutError):
        app.AsyncResult(never).get(timeout=0.1)
    ending = threading.Timer(0.3, before.backend.store_result, (late, "late", "SUCCESS"))
    ending.start()
    assert app.AsyncResult(late).get(timeout=60) == "late"
    ending.join()


def test_callbacks_and_await(app: Celery, before: celery.Celery) -> None:
    heard: list[Any] = []
    app.AsyncResult(stored(before, 5)).then(lambda result: heard.append(result.result))
    assert heard == [5]

    async def main() -> Any:
        return await app.AsyncResult(stored(before, 6))

    assert asyncio.run(main()) == 6


def test_an_id_of_neither_side_is_pending_and_costs_next_to_nothing(app: Celery, reads: Any) -> None:
    unknown = app.AsyncResult(str(uuid.uuid4()))
    assert unknown.state == "PENDING"
    count = reads()
    for _ in range(50):
        assert unknown.state == "PENDING"
        assert not unknown.ready()
    seconds_at_most = 20
    assert reads() - count <= seconds_at_most


def test_what_waits_on_ray_is_looked_up_once(app: Celery, redis_url: str, reads: Any) -> None:
    waiting = app.send_task("nobody.knows", countdown=3600)
    other = switched(redis_url).AsyncResult(waiting.id)  # as another process polls it
    assert other.state == "PENDING"
    count = reads()
    for _ in range(50):
        assert other.state == "PENDING"
    assert reads() == count
    app.control.revoke(waiting.id)


def test_nothing_is_looked_up_where_that_is_turned_off(redis_url: str, before: celery.Celery, app: Celery) -> None:
    ended = stored(before, 1)
    assert switched(redis_url, ray_old_results=False).AsyncResult(ended).state == "PENDING"
    assert app.AsyncResult(ended).state == "SUCCESS"


def test_a_backend_that_is_gone_is_said_once_and_asked_no_more(
    ray_session: RaySession, caplog: pytest.LogCaptureFixture
) -> None:
    gone = switched(f"redis://:secret@127.0.0.1:{support.free_port()}/0")
    with caplog.at_level(logging.WARNING, "raycelery.switch"):
        for _ in range(20):
            assert gone.AsyncResult(str(uuid.uuid4())).state == "PENDING"
    (said,) = [record.getMessage() for record in caplog.records]
    assert "does not answer" in said
    assert "ray_old_results" in said
    assert "secret" not in said
    with pytest.raises(celery.exceptions.TimeoutError):
        gone.AsyncResult(str(uuid.uuid4())).get(timeout=0.1)


def test_only_what_the_application_accepts_is_decoded(redis_url: str, app: Celery) -> None:
    pickles = celery.Celery("switched", backend=redis_url, set_as_current=False)
    pickles.conf.update(result_serializer="pickle", accept_content=["pickle"])
    ended = stored(pickles, {1, 2})
    with pytest.raises(Exception, match=r"(?i)decod|utf-8|pickle"):
        _ = app.AsyncResult(ended).state
    accepting = switched(redis_url, result_serializer="pickle", accept_content=["pickle"])
    assert accepting.AsyncResult(ended).get(timeout=10) == {1, 2}
