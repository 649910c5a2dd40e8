"""Celery's best-known traps with Redis, which a bridge does not fall into."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
import redis

from tests import brokers
from tests.bridge.support import Project, Worker, restart_under_load, runs
from tests.brokers import Redis
from tests.support import until

Make = Callable[..., Project]
Start = Callable[..., Worker]

#: Redis gives messages away again after 3 s, and everybody looks for such messages all the time.
IMPATIENT = {"visibility_timeout": 3, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}


@pytest.fixture
def restartable() -> Iterator[Redis]:
    with brokers.redis() as broker:
        yield broker


def test_longer_than_the_visibility_timeout(project: Make, bridge_worker: Start, redis_url: str) -> None:
    shop = project(broker_transport_options=IMPATIENT)
    bridge_worker(shop, concurrency=1)
    bridge_worker(shop, concurrency=1)
    result = shop.send("late", "long", 9)
    later = shop.send("late", "later", countdown=7)
    client = redis.Redis.from_url(redis_url)
    until(lambda: runs(shop, "long"))
    assert result.get(timeout=60) == "long"
    assert later.get(timeout=60) == "later"
    assert (runs(shop, "long"), runs(shop, "later")) == (1, 1)
    until(lambda: not client.hlen("unacked"))


def test_a_message_that_is_delivered_again_takes_part_in_the_run(project: Make, bridge_worker: Start) -> None:
    shop = project(broker_transport_options=IMPATIENT)
    first = bridge_worker(shop, concurrency=1)
    result = shop.send("late", "shared", 60)
    until(lambda: runs(shop, "shared"))
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        second = bridge_worker(shop, concurrency=1)
        second.wait_for_log(f"[{result.id}] received")
        shop.go()
        assert result.get(timeout=60) == "shared"
        until(lambda: shop.app.control.inspect([second.node]).active() == {second.node: []})
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    assert runs(shop, "shared") == 1


def test_a_long_task_holds_nobody_back(project: Make, bridge_worker: Start, redis_url: str) -> None:
    shop = project()
    worker = bridge_worker(shop, concurrency=1)
    # So that it knows the task to be short, and would fetch ahead.
    assert [r.get(timeout=60) for r in [shop.send("early", "short") for _ in range(40)]] == ["short"] * 40
    long = shop.send("early", "long", 60)
    short = [shop.send("early", "short2") for _ in range(20)]
    until(lambda: runs(shop, "long"))
    client = redis.Redis.from_url(redis_url)
    until(lambda: client.llen("celery") == 20, say="messages are held by a worker that cannot run them")
    bridge_worker(shop, concurrency=1)
    assert [result.get(timeout=60) for result in short] == ["short2"] * 20
    assert not long.ready()
    shop.go()
    assert long.get(timeout=60) == "long"
    assert worker.process.poll() is None


def test_the_broker_goes_and_returns(project: Make, bridge_worker: Start, restartable: Redis, redis_url: str) -> None:
    shop = project(broker=restartable.url)
    restart_under_load(shop, bridge_worker(shop, concurrency=3), restartable)
    assert sum(runs(shop, f"load{i}") for i in range(150)) == 150
    client = redis.Redis.from_url(restartable.url)
    until(lambda: not client.hlen("unacked"), say=lambda: f"unacknowledged: {client.hgetall('unacked')}")


def test_a_bridge_killed_under_load_loses_nothing(project: Make, bridge_worker: Start, redis_url: str) -> None:
    shop = project(broker_transport_options=IMPATIENT)
    worker = bridge_worker(shop, concurrency=2)
    long = shop.send("late", "long", 60)
    results = [shop.send("late", f"load{i}", 0.005) for i in range(300)]
    until(lambda: runs(shop, "long") and runs(shop, "load30"))
    worker.process.kill()
    bridge_worker(shop, concurrency=2)
    assert [result.get(timeout=60) for result in results] == [f"load{i}" for i in range(300)]
    # What was running went on, and its message, delivered again, takes part.
    shop.go()
    assert long.get(timeout=60) == "long"
    client = redis.Redis.from_url(redis_url)
    until(lambda: not client.hlen("unacked"))
    assert runs(shop, "long") == 1


def test_after_a_deadline_a_deploy_requeues(project: Make, bridge_worker: Start) -> None:
    shop = project(ray_drain_seconds=1.0)
    worker = bridge_worker(shop, concurrency=2)
    late, early = shop.send("late", "late", 60), shop.send("early", "early", 60)
    until(lambda: runs(shop, "late") and runs(shop, "early"))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0
    bridge_worker(shop, concurrency=2)
    until(lambda: runs(shop, "late") == 2)
    shop.go()
    assert late.get(timeout=60) == "late"
    # It was acknowledged and cannot be run again: it went on.
    assert early.get(timeout=60) == "early"
    assert runs(shop, "early") == 1
