"""Fixtures for every test folder; what they start is in `tests/support.py`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import scripts, support

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
def warm_ray(ray_session: support.RaySession) -> None:
    """Ray, with executors of `tests/sample.py` and `tests/tasks.py` up, so that a test waits for no start."""
    importlib.import_module("tests.sample").identity.delay(0).get(timeout=60)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file for `tests/records.py`."""
    return str(tmp_path / "records")


@pytest.fixture
def run(ray_session: support.RaySession, tmp_path: Path) -> scripts.Run:
    """Run a program of a user's own on this process's Ray: see `tests/scripts.py`."""
    return partial(scripts.run, tmp_path, address=ray_session.address)


@pytest.fixture
def celery_stock_worker(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., support.StockWorker]]:
    """Start stock Celery workers to compare with, for one test: `celery_stock_worker("module", concurrency=2)`.

    The module is imported from `tmp_path`; `tests.support.stock_worker` tells the other arguments.
    """
    with contextlib.ExitStack() as workers:

        def start(module: str, *arguments: str, **options: Any) -> support.StockWorker:
            return workers.enter_context(support.stock_worker(module, redis_url, tmp_path, *arguments, **options))

        yield start
