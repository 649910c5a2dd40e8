"""Fixtures: a project that goes over to Ray, on Redis or RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import rabbitmq
from tests.support import RaySession
from tests.switch import support


@pytest.fixture
def project(redis_url: str, tmp_path: Path, ray_session: RaySession) -> Iterator[Callable[..., support.Project]]:
    """Write a project: `project(broker=..., task_queues=...)`; on Redis where no broker is named."""
    made = []

    def make(**settings: Any) -> support.Project:
        broker = settings.pop("broker", redis_url)
        made.append(support.write(tmp_path, ray_session.address, broker, redis_url, **settings))
        return made[-1]

    yield make
    for one in made:
        # Its results would unsubscribe when they are collected, be it after the end of Redis.
        one.old.backend.result_consumer.subscribed_to.clear()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """URL of a RabbitMQ for this test session."""
    with rabbitmq() as broker:
        yield broker.url


@pytest.fixture(autouse=True)
def _empty_redis(redis_url: str) -> None:
    """No test finds another's messages."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
