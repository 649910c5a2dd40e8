"""Bridges on a real RabbitMQ, with results in Redis."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from celery.exceptions import TaskRevokedError, WorkerLostError

from tests.bridge.brokers import RabbitMQ
from tests.bridge.support import Project, Worker, restart_under_load, runs, until
from tests.support import short_directory

Make = Callable[..., Project]
Start = Callable[..., Worker]


@pytest.fixture
def restartable() -> Iterator[RabbitMQ]:
    with short_directory("rc-rabbit-") as directory:
        broker = RabbitMQ(directory)
        try:
            broker.start()
            yield broker
        finally:
            broker.close()


def depth(shop: Project, queue: str = "celery") -> int:
    """Return how many messages wait in a queue, without those that workers hold."""
    with shop.app.connection_for_read() as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


def test_results_errors_losses_and_revocation(project: Make, bridge_worker: Start, rabbitmq_url: str) -> None:
    shop = project(broker=rabbitmq_url, task_default_queue="first")
    shop.app.conf.task_default_queue = "first"
    bridge_worker(shop)
    assert shop.send("add", 2, 3).get(timeout=60) == 5
    with pytest.raises(ValueError, match="no good"):
        shop.send("fail", "no good").get(timeout=60)
    assert shop.send("flaky", 2).get(timeout=60) == 2
    results = [shop.send("add", i, 1) for i in range(300)]
    assert [result.get(timeout=60) for result in results] == list(range(1, 301))
    with pytest.raises(WorkerLostError, match="delivered 3 times"):
        shop.send("deadly", "deadly").get(timeout=60)
    assert len(shop.traces("deadly")) == 3
    running = shop.send("late", "run", 60)
    until(lambda: runs(shop, "run"))
    shop.app.control.revoke(running.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=60)
    until(lambda: depth(shop, "first") == 0)


@pytest.mark.slow
def test_a_long_task_holds_nobody_back(project: Make, bridge_worker: Start, rabbitmq_url: str) -> None:
    shop = project(broker=rabbitmq_url, task_default_queue="second")
    shop.app.conf.task_default_queue = "second"
    bridge_worker(shop, concurrency=1)
    long = shop.send("early", "long", 60)
    until(lambda: runs(shop, "long"))
    short = [shop.send("early", "short") for _ in range(20)]
    until(lambda: depth(shop, "second") == 20, say="messages are held by a worker that cannot run them")
    bridge_worker(shop, concurrency=1)
    assert [result.get(timeout=60) for result in short] == ["short"] * 20
    assert not long.ready()
    shop.go()
    assert long.get(timeout=60) == "long"
    # It takes messages again.
    assert shop.send("add", 1, 1).get(timeout=60) == 2


def test_the_broker_goes_and_returns(project: Make, bridge_worker: Start, restartable: RabbitMQ) -> None:
    shop = project(broker=restartable.url)
    restart_under_load(shop, bridge_worker(shop, concurrency=3), restartable)
    until(lambda: depth(shop) == 0)


def test_longer_than_the_consumer_timeout(project: Make, bridge_worker: Start) -> None:
    with short_directory("rc-rabbit-") as directory:
        broker = RabbitMQ(directory, "{consumer_timeout, 2000}, {channel_tick_interval, 500}")
        try:
            broker.start()
            shop = project(broker=broker.url, ray_consumer_timeout=2)
            worker = bridge_worker(shop, concurrency=1)
            assert "may run longer than RabbitMQ's consumer_timeout" in worker.log.read_text()
            result = shop.send("late", "long", 60)
            until(lambda: runs(shop, "long"))
            worker.wait_for_log("Connection to broker lost")
            worker.wait_for_log("Connected to")
            shop.go()
            assert result.get(timeout=60) == "long"
            assert runs(shop, "long") == 1
            assert shop.send("add", 1, 1).get(timeout=60) == 2
            until(lambda: depth(shop) == 0)
        finally:
            broker.close()


@pytest.mark.slow
def test_a_bridge_killed_under_load_loses_nothing(project: Make, bridge_worker: Start, rabbitmq_url: str) -> None:
    shop = project(broker=rabbitmq_url, task_default_queue="third")
    shop.app.conf.task_default_queue = "third"
    worker = bridge_worker(shop, concurrency=2)
    long = shop.send("late", "long", 60)
    results = [shop.send("late", f"load{i}", 0.005) for i in range(300)]
    until(lambda: runs(shop, "long") and runs(shop, "load30"))
    worker.process.kill()
    second = bridge_worker(shop, concurrency=2)
    assert [result.get(timeout=60) for result in results] == [f"load{i}" for i in range(300)]
    shop.go()
    assert long.get(timeout=60) == "long"
    assert runs(shop, "long") == 1
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(30) == 0
    assert depth(shop, "third") == 0
