"""Messages that are held for longer than RabbitMQ waits: on a real RabbitMQ, with Celery's requests and no worker."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest
from celery.worker.request import Request
from kombu import Exchange, Queue

from raycelery.bridge.ack_timeout import AckTimeout, was_copied
from raycelery.bridge.sources import Sources
from tests.support import free_port, until

#: Seconds that RabbitMQ is taken to wait; messages are replaced by copies after half of that.
TIMEOUT = 0.4


def application(url: str) -> celery.Celery:
    """Return an application with one task, and queues that no other test has."""
    name = uuid.uuid4().hex
    app = celery.Celery(name, broker=url, set_as_current=False)
    app.conf.task_queues = [
        Queue(name, Exchange(name), routing_key=name),
        Queue(
            f"{name}-refusing", Exchange(name), routing_key="refusing",
            queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}-dead"},
        ),
        Queue(f"{name}-dead", Exchange(name), routing_key="dead"),
    ]  # fmt: skip
    app.conf.task_default_queue = name

    @app.task(name="work", acks_late=True, shared=False)
    def work(value: int) -> int:
        return value

    return app


class Consumer:
    """Takes messages as a worker does, and holds them.

    Arguments:
        app: from whose queues.
    """

    def __init__(self, app: celery.Celery) -> None:
        self.app = app
        self.name = str(app.conf.task_default_queue)
        self.requests: list[Any] = []
        self._sources = Sources()
        self._connection = app.connection_for_read()
        self.channel = self._connection.channel()
        self._sources.watch(self.channel)
        queues = [app.amqp.queues[name] for name in (self.name, f"{self.name}-refusing")]
        for queue in app.amqp.queues.values():
            queue(self.channel).declare()
        self._connection.Consumer(queues, channel=self.channel, on_message=self._on_message).consume()

    def _on_message(self, message: Any) -> None:
        self._sources.note(message)
        self.requests.append(
            Request(
                message, on_ack=message.ack_log_error, on_reject=message.reject_log_error, app=self.app,
                task=self.app.tasks["work"], connection_errors=self._connection.connection_errors,
            )
        )  # fmt: skip

    def hold(self, value: int = 1, queue: str = "") -> Any:
        """Publish a call, and return Celery's request of it once its message is held."""
        sent = self.app.send_task("work", (value,), queue=f"{self.name}{queue}")
        until(lambda: self._take() or any(request.id == sent.id for request in self.requests))
        return next(request for request in self.requests if request.id == sent.id)

    def _take(self) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=0.05)

    def close(self) -> None:
        """End as a killed worker does: what is held goes back to its queue."""
        self._connection.close()

    def waiting(self, queue: str = "") -> int:
        """Return how many messages wait in a queue."""
        with self.app.connection_for_read() as connection:
            name = f"{self.name}{queue}"
            return int(connection.default_channel.queue_declare(name, passive=True).message_count)

    def take(self, queue: str = "") -> Any:
        """Wait for a message in a queue that nobody consumes, and take it."""
        with self.app.connection_for_read() as connection:
            found: list[Any] = []

            def get() -> bool:
                message = connection.default_channel.basic_get(f"{self.name}{queue}", no_ack=True)
                found.extend([message] if message is not None else [])
                return bool(found)

            until(get)
            return found[0]


@pytest.fixture
def consumer(rabbitmq_url: str) -> Iterator[Consumer]:
    consumer = Consumer(application(rabbitmq_url))
    try:
        yield consumer
    finally:
        consumer.close()


@pytest.fixture
def ack_timeout(consumer: Consumer) -> Iterator[AckTimeout]:
    ack_timeout = AckTimeout(consumer.app, TIMEOUT, threading.RLock())
    try:
        yield ack_timeout
    finally:
        ack_timeout.close()


@pytest.fixture
def check(consumer: Consumer, ack_timeout: AckTimeout, caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Have requests checked until one has been replaced by its copy."""
    caplog.set_level("INFO")

    def check(request: Any) -> None:
        until(
            lambda: (
                ack_timeout.check(consumer.channel, consumer.requests) or f"task {request.id} runs long" in caplog.text
            )
        )

    return check


def test_a_copy_takes_the_place_of_what_is_held(
    consumer: Consumer, ack_timeout: AckTimeout, check: Callable[..., None]
) -> None:
    request = consumer.hold(7)
    check(request)
    # The original is acknowledged: it does not come back with the connection of the consumer.
    consumer.close()
    assert consumer.waiting() == 0
    ack_timeout.close()
    copy = consumer.take()
    assert copy.headers["id"] == request.id
    assert was_copied(copy.headers)
    assert not was_copied(request.message.headers)
    assert copy.body == request.message.body
    assert (copy.content_type, copy.properties["correlation_id"]) == ("application/json", request.id)


def test_what_is_held_for_a_short_time_is_left_alone(consumer: Consumer, ack_timeout: AckTimeout) -> None:
    request = consumer.hold()
    ack_timeout.check(consumer.channel, [request])
    consumer.close()
    original = consumer.take()
    assert original.headers["id"] == request.id
    assert not was_copied(original.headers)


def test_an_end_settles_the_copy(consumer: Consumer, ack_timeout: AckTimeout, check: Callable[..., None]) -> None:
    ended, running = consumer.hold(), consumer.hold()
    check(ended)
    check(running)
    ended.acknowledge()
    consumer.close()
    ack_timeout.close()
    # They come back in order: the one that ended does not.
    assert consumer.take().headers["id"] == running.id
    assert consumer.waiting() == 0


def test_one_that_is_rejected_is_delivered_again_or_dead_lettered(
    consumer: Consumer, check: Callable[..., None]
) -> None:
    refused, dropped = consumer.hold(queue="-refusing"), consumer.hold()
    check(refused)
    check(dropped)
    dropped.reject(requeue=False)
    refused.reject(requeue=False)
    dead = consumer.take("-dead")
    assert dead.headers["id"] == refused.id

    again = consumer.hold()
    check(again)
    again.reject(requeue=True)
    until(lambda: consumer._take() or len(consumer.requests) == 4)
    assert consumer.requests[-1].id == again.id
    assert was_copied(consumer.requests[-1].message.headers)


def test_what_the_worker_has_dropped_goes_back(
    consumer: Consumer, ack_timeout: AckTimeout, check: Callable[..., None]
) -> None:
    request = consumer.hold()
    check(request)
    ack_timeout.check(consumer.channel, [])
    consumer.close()
    assert consumer.take().headers["id"] == request.id


def test_what_came_by_a_lost_channel_is_not_copied(consumer: Consumer, ack_timeout: AckTimeout) -> None:
    old, new = consumer.hold(), Consumer(consumer.app)
    try:
        consumer.close()
        until(lambda: new._take() or new.requests)
        requests = [old, *new.requests]
        until(lambda: ack_timeout.check(new.channel, requests) or _replaced(new))
    finally:
        new.close()
    ack_timeout.close()
    # RabbitMQ delivers the old one again by itself, and only its second delivery was copied.
    assert was_copied(consumer.take().headers)
    assert consumer.waiting() == 0


def _replaced(consumer: Consumer) -> bool:
    """Return whether the first message of a consumer was acknowledged."""
    return bool(consumer.requests[0].message.acknowledged)


def test_a_broker_that_refuses_copies_keeps_the_original(consumer: Consumer, caplog: pytest.LogCaptureFixture) -> None:
    unreachable = application(f"amqp://guest:guest@127.0.0.1:{free_port()}//")
    ack_timeout = AckTimeout(unreachable, TIMEOUT, threading.RLock())
    request = consumer.hold()
    until(lambda: ack_timeout.check(consumer.channel, [request]) or "cannot be kept" in caplog.text)
    assert not request.message.acknowledged
    ack_timeout.close()
    request.acknowledge()
    consumer.close()
    assert consumer.waiting() == 0
