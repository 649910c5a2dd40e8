"""Fixtures for every test folder; what they start is in `tests/support.py`."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import support

support.prepare_environment()


def pytest_configure() -> None:
    """Refuse an installation from before a change of `package_dir`, whose finder does not know all packages."""
    if importlib.util.find_spec("raycelery.bench") is None:
        raise pytest.UsageError("raycelery.bench is not found: install this folder again (pip install -e . --no-deps)")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Redis for this test session."""
    with support.redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def ray_session() -> Iterator[support.RaySession]:
    """A Ray with 4 CPUs in this process; every `raycelery.Celery` made here uses it."""
    with support.ray_cluster(num_cpus=4) as session:
        yield session


@pytest.fixture
def celery_stock_worker(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., support.StockWorker]]:
    """Start stock Celery workers to compare with, for one test: `celery_stock_worker("module", concurrency=2)`.

    The module is imported from `tmp_path`; `tests.support.stock_worker` tells the other arguments.
    """
    with contextlib.ExitStack() as workers:

        def start(module: str, *arguments: str, **options: Any) -> support.StockWorker:
            return workers.enter_context(support.stock_worker(module, redis_url, tmp_path, *arguments, **options))

        yield start
