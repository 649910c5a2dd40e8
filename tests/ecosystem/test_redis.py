"""Packages that keep locks and schedules in a Redis: celery-singleton, celery-once, celery-redbeat."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import support
from tests.support import ROOT, RaySession, until

SECONDS = 60


@pytest.fixture
def locked(environment: Path, ray_session: RaySession) -> Any:
    """The application."""
    from tests.ecosystem import locked

    return locked


def test_a_singleton_is_queued_once(locked: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first, second = locked.single.delay(str(go)), locked.single.delay(str(go))
    assert first.id == second.id
    go.touch()
    assert first.get(timeout=SECONDS) == str(go)
    # Its lock is given back within the run, before the result is there or soon after.
    until(lambda: locked.single.delay(str(go)).id != first.id, SECONDS)


def test_a_queued_once_task_is_refused_while_it_is_queued(locked: Any, tmp_path: Path) -> None:
    from celery_once import AlreadyQueued

    go = tmp_path / "go"
    first = locked.once.delay(str(go))
    with pytest.raises(AlreadyQueued):
        locked.once.delay(str(go))
    go.touch()
    assert first.get(timeout=SECONDS) == str(go)

    def again() -> bool:
        try:
            locked.once.delay(str(go))
        except AlreadyQueued:
            return False
        return True

    until(again, SECONDS)


LOCKS = """
import celery_once
import celery_singleton

app.conf.singleton_backend_url = "{url}"
app.conf.ONCE = {{"backend": "celery_once.backends.Redis", "settings": {{"url": "{url}", "default_timeout": 600}}}}


@app.task(base=celery_singleton.Singleton)
def single():
    return late.run("single", 60)


@app.task(base=celery_once.QueueOnce, once={{"graceful": True}})
def once():
    return late.run("once", 60)


@app.task
def begin():
    return [str(task.delay()) for task in (single, single, once, once)]
"""


def test_locks_under_a_bridge(redis_url: str, project: Callable[..., Any], bridge_worker: Callable[..., Any]) -> None:
    shop = project(more=LOCKS.format(url=redis_url))
    bridge_worker(shop, concurrency=3)
    first, second, once, refused = shop.send("begin").get(timeout=SECONDS)
    assert first == second
    assert once != "None"
    assert refused == "None"
    shop.go()
    assert shop.app.AsyncResult(first).get(timeout=SECONDS) == "single"
    assert shop.app.AsyncResult(once).get(timeout=SECONDS) == "once"

    def free() -> bool:
        again, _, once_again, _ = shop.send("begin").get(timeout=SECONDS)
        return again != first and once_again != "None"

    until(free, SECONDS)


def test_redbeat_runs_a_schedule(environment: Path, ray_session: RaySession, redis_url: str, tmp_path: Path) -> None:
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tests.ecosystem.locked", "beat", "-S", "redbeat.RedBeatScheduler",
         "--max-interval", "1", "--pidfile", str(tmp_path / "beat.pid")],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": ray_session.address},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until((environment / "ticks").exists, 2 * SECONDS, "nothing ticks")
        with redis.from_url(redis_url) as keys:
            assert keys.hget("redbeat:ticking", "meta"), "another schedule ran it"
    finally:
        support.stop(beat)
