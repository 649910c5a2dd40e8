"""celery-batches under a bridge: tasks whose own ``Strategy`` collects messages, and runs many in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kombu import Queue

from tests.bridge.support import Project, Worker

# It holds Celery below 5.7: `tox -e ecosystem` has it, and runs these.
pytest.importorskip("celery_batches", reason="celery-batches is not installed; tox -e ecosystem has it")

Make = Callable[..., Project]
Start = Callable[..., Worker]

BATCHES = """
from celery_batches import Batches


@app.task(base=Batches, flush_every=5, flush_interval=1, acks_late=True, num_cpus=2)
def squares(requests):
    from raycelery.executor import request as asked

    trace("batch", f"{len(requests)} {asked['CPU']}")
    for request in requests:
        app.backend.mark_as_done(request.id, request.args[0] ** 2, request=request)
"""


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_messages_are_run_in_batches(
    broker: str, project: Make, bridge_worker: Start, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(broker)
    queue = {"task_default_queue": "batches", "task_default_routing_key": "batches"}
    shop = project(broker=url, more=BATCHES, worker_prefetch_multiplier=10, **queue)
    shop.app.conf.update(queue)
    worker = bridge_worker(shop, concurrency=1)
    results = [shop.send("squares", i) for i in range(11)]
    assert [result.get(timeout=60) for result in results] == [i * i for i in range(11)]
    # Other tasks are not held up, and all went to executors with what the task asks for.
    assert shop.send("add", 1, 1).get(timeout=60) == 2
    batches = shop.traces("batch")
    assert sum(int(batch[2]) for batch in batches) == 11
    assert len(batches) <= 4
    assert {float(batch[3]) for batch in batches} == {2}
    assert worker.process.pid not in {int(batch[0]) for batch in batches}

    # Nothing comes back: all were acknowledged.
    worker.process.terminate()
    assert worker.process.wait(60) == 0
    with shop.app.connection_for_read() as connection:
        assert Queue("batches")(connection.default_channel).queue_declare().message_count == 0
