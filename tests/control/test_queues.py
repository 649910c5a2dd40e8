"""What kombu shows of queues in direct mode: exporters and autoscalers read their lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
from kombu.exceptions import ChannelError
from kombu.simple import SimpleQueue

from raycelery.errors import MessageError
from tests.control import shop

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60


def test_waiting_tasks_are_counted() -> None:
    # Nothing of it is begun, so all of it waits.
    shop.app.control.cancel_consumer("numbered")
    try:
        results = [shop.add.apply_async((1, number), queue="numbered") for number in range(3)]
        with shop.app.connection() as connection:
            channel = connection.default_channel
            assert channel.queue_declare("numbered", passive=True).message_count == 3
            assert channel.queue_declare("numbered", passive=True).message_count == 3, "looking makes no queue"
            with SimpleQueue(connection, "numbered") as queue:
                assert queue.qsize() == len(queue) == 3
            assert channel.queue_declare("celery", passive=True).message_count == 0, "it is the application's"
            with pytest.raises(ChannelError, match="nobodys"):
                channel.queue_declare("nobodys", passive=True)
        with shop.app.amqp.producer_pool.acquire(block=True) as producer:
            assert producer.channel.queue_declare("numbered", passive=True).message_count == 3
            assert producer.connection.default_channel.queue_declare("numbered", passive=True).message_count == 3
    finally:
        shop.app.control.add_consumer("numbered")
    assert [result.get(timeout=SECONDS) for result in results] == [1, 2, 3]


def test_what_waits_can_be_dropped_by_kombu() -> None:
    shop.app.control.cancel_consumer("dropped")
    try:
        shop.add.apply_async((1, 1), queue="dropped", ignore_result=True)
        with shop.app.connection() as connection, SimpleQueue(connection, "dropped") as queue:
            assert queue.clear() == 1
            assert queue.qsize() == 0
    finally:
        shop.app.control.add_consumer("dropped")


def test_queues_that_are_not_of_tasks_are_kombus() -> None:
    with shop.app.connection() as connection, SimpleQueue(connection, "notes") as queue:
        queue.put({"zone": "EWR"})
        assert queue.qsize() == 1
        assert queue.get(timeout=SECONDS).payload == {"zone": "EWR"}


def test_tasks_are_neither_taken_nor_put_by_hand(tmp_path: Path) -> None:
    with shop.app.connection() as connection, SimpleQueue(connection, "celery") as queue:
        with pytest.raises(MessageError, match=r"'celery'.*executors"):
            queue.get(block=False)
        with pytest.raises(MessageError, match=r"'celery'.*executors"):
            queue.get(timeout=1)
        with pytest.raises(MessageError, match=r"'celery'.*apply_async"):
            queue.put({"task": "shop.add"})


def test_the_producer_sends_tasks_and_events_only() -> None:
    with shop.app.producer_or_acquire() as producer:
        producer.declare()
        assert not producer.maybe_declare(shop.app.amqp.queues["celery"])
        with pytest.raises(MessageError, match="names no task"):
            producer.publish({"zone": "EWR"}, routing_key="celery")
        with pytest.raises(AttributeError, match=r"direct mode has no 'batch'"):
            producer.batch()
    with shop.app.pool.acquire(block=True) as connection:
        connection.ensure_connection()
        assert connection.default_channel.queue_declare("celery", passive=True).queue == "celery"
