"""Bridges on a real RabbitMQ, with results in Redis."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError, WorkerLostError
from kombu import Exchange, Queue

from tests.bridge import support as bridge
from tests.bridge.support import Project, Worker, restart_under_load, runs
from tests.brokers import RabbitMQ, rabbitmq
from tests.support import until

Make = Callable[..., Project]
Start = Callable[..., Worker]


@pytest.fixture
def restartable() -> Iterator[RabbitMQ]:
    with rabbitmq() as broker:
        yield broker


@pytest.fixture
def impatient() -> Iterator[RabbitMQ]:
    with rabbitmq("{consumer_timeout, 2000}, {channel_tick_interval, 500}") as broker:
        yield broker


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


def test_results_by_rpc(bridge_worker: Start, rabbitmq_url: str, tmp_path: Path) -> None:
    shop = bridge.write(tmp_path, rabbitmq_url, "rpc://", task_default_queue="rpc")
    shop.app.conf.task_default_queue = "rpc"
    bridge_worker(shop)
    results = [shop.send("add", i, 1) for i in range(20)]
    assert [result.get(timeout=60) for result in results] == list(range(1, 21))
    with pytest.raises(ValueError, match="no good"):
        shop.send("fail", "no good").get(timeout=60)
    with pytest.raises(WorkerLostError):
        shop.send("dies", "lost").get(timeout=60)


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


def test_longer_than_the_consumer_timeout(project: Make, bridge_worker: Start, impatient: RabbitMQ) -> None:
    shop = project(broker=impatient.url, ray_consumer_timeout=2)
    worker = bridge_worker(shop, concurrency=2)
    assert "may run longer than RabbitMQ's consumer_timeout" in worker.log.read_text()
    long, later = shop.send("late", "long", 60), shop.send("late", "later", countdown=7)
    until(lambda: runs(shop, "long"))
    # That is three times as long as RabbitMQ puts up with, for one that runs and one that waits for its time.
    assert later.get(timeout=60) == "later"
    assert not long.ready()
    assert "Connection to broker lost" not in worker.log.read_text()
    # Its message is safe all the same.
    worker.process.kill()
    until(lambda: depth(shop) >= 1)
    second = bridge_worker(shop, concurrency=1)
    second.wait_for_log(f"[{long.id}] received")
    shop.go()
    assert long.get(timeout=60) == "long"
    assert (runs(shop, "long"), runs(shop, "later")) == (1, 1)
    assert shop.send("add", 1, 1).get(timeout=60) == 2
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0
    assert depth(shop) == 0


REFUSING = """
from celery.exceptions import Reject
from kombu import Exchange, Queue

app.conf.task_queues = [
    Queue("orders", Exchange("orders"), routing_key="orders",
          queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
]
app.conf.task_default_queue = "orders"


@app.task(acks_late=True)
def refuse(name):
    trace(name)
    time.sleep(2)
    raise Reject("no", requeue=not (HERE / "go").exists())
"""


def test_a_message_that_was_long_held_can_be_refused(project: Make, bridge_worker: Start, impatient: RabbitMQ) -> None:
    shop = project(broker=impatient.url, ray_consumer_timeout=2, more=REFUSING)
    bridge_worker(shop, concurrency=1)
    with shop.app.connection_for_write() as connection:
        connection.default_channel.queue_declare("dead", auto_delete=False)
    sent = shop.app.send_task(f"{shop.module}.refuse", ("one",), exchange="orders", routing_key="orders", queue=None)
    until(lambda: len(shop.traces("one")) == 2, 60)
    shop.go()
    until(lambda: depth(shop, "dead") == 1)
    assert depth(shop, "orders") == 0
    with shop.app.connection_for_read() as connection:
        message = connection.default_channel.basic_get("dead", no_ack=True)
    assert message.headers["id"] == sent.id
    assert len(shop.traces("one")) == 2


ROUTED = """
from kombu import Exchange, Queue
from raycelery.executor import request

app.conf.task_queues = [
    Queue("feeds", Exchange("feeds", "topic"), routing_key="feed.#"),
    Queue("days", Exchange("days", "topic"), routing_key="day", queue_arguments={"x-queue-type": "quorum"}),
]
app.conf.task_default_queue = "feeds"
app.conf.ray_queues = {"feeds": {"num_cpus": 2}, "days": {"num_cpus": 3}}


@app.task
def cpus():
    return request["CPU"]
"""


def test_queues_whose_name_is_not_the_routing_key(project: Make, bridge_worker: Start, impatient: RabbitMQ) -> None:
    shop = project(broker=impatient.url, ray_consumer_timeout=2, more=ROUTED, ray_num_cpus=0.5)
    shop.app.conf.task_queues = [
        Queue("feeds", Exchange("feeds", "topic"), routing_key="feed.#"),
        Queue("days", Exchange("days", "topic"), routing_key="day", queue_arguments={"x-queue-type": "quorum"}),
    ]
    worker = bridge_worker(shop, concurrency=3)
    topic = {"exchange": "feeds", "routing_key": "feed.us.east", "queue": None}
    # With a countdown, RabbitMQ holds what is for a quorum queue, and its routing key tells for how long.
    late = {"queue": "days", "countdown": 1}
    assert shop.send("cpus", **topic).get(timeout=60) == 2
    assert shop.send("cpus", **late).get(timeout=60) == 3
    long = [shop.send("late", "topic", 60, **topic), shop.send("late", "late", 60, **late)]
    for result in long:
        worker.wait_for_log(f"task {result.id} runs long")
    worker.process.kill()
    until(
        lambda: depth(shop, "feeds") >= 1 and depth(shop, "days") >= 1,
        say=lambda: f"lost: {depth(shop, 'feeds')}, {depth(shop, 'days')}: {worker.log.read_text()}",
    )
    second = bridge_worker(shop, concurrency=3)
    for result in long:
        second.wait_for_log(f"[{result.id}] received")
    shop.go()
    assert [result.get(timeout=60) for result in long] == ["topic", "late"]
    assert (runs(shop, "topic"), runs(shop, "late")) == (1, 1)
    # What is no longer consumed stays in its queue.
    shop.app.control.cancel_consumer("feeds", destination=[second.node], reply=True)
    left = shop.send("cpus", **topic)
    assert shop.send("cpus", **late).get(timeout=60) == 3
    assert not left.ready()
    assert depth(shop, "feeds") == 1


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
