"""Fixtures: projects on a real broker, and the workers that consume it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridge import support as bridge
from tests.brokers import rabbitmq
from tests.support import RaySession


@pytest.fixture
def project(redis_url: str, tmp_path: Path) -> Callable[..., bridge.Project]:
    """Write a project on Redis: `project(more="...", task_track_started=True)`."""

    def make(**options: Any) -> bridge.Project:
        broker = options.pop("broker", redis_url)
        return bridge.write(tmp_path, broker, redis_url, **options)

    return make


@pytest.fixture
def bridge_worker(ray_session: RaySession) -> Iterator[Callable[..., bridge.Worker]]:
    """Start bridges that use this process's Ray, for one test: `bridge_worker(project, "-E", concurrency=2)`."""
    with contextlib.ExitStack() as workers:

        def start(project: bridge.Project, *arguments: str, **options: Any) -> bridge.Worker:
            return workers.enter_context(
                bridge.worker(project, *arguments, **{"address": ray_session.address, **options})
            )

        yield start


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """URL of a RabbitMQ for this test session."""
    with rabbitmq() as broker:
        yield broker.url
