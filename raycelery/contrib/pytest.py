"""Celery's pytest fixtures for projects that run on raycelery.

In ``conftest.py``: ``pytest_plugins = ["raycelery.contrib.pytest"]``. ``celery_app``, ``celery_session_app``,
``celery_worker``, ``celery_session_worker`` and the fixtures that configure them work as at
https://docs.celeryq.dev/en/stable/userguide/testing.html: tasks run in a thread of the test's process and see what the
test has patched. A fixture ``celery_worker_pool`` of the project's own that returns ``"ray"`` has them run on Ray.
"""

# ruff: noqa: F811  (fixtures are arguments by their names)
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.contrib.pytest import (  # noqa: F401  (fixtures and hooks that are the plugin's)
    celery_class_tasks,
    celery_config,
    celery_enable_logging,
    celery_includes,
    celery_parameters,
    celery_worker_parameters,
    celery_worker_pool,
    depends_on_current_app,
    pytest_configure,
    use_celery_app_trap,
)

from raycelery.contrib.testing.app import TestApp, setup_default_app
from raycelery.contrib.testing.worker import start_worker


@contextmanager
def _create_app(
    request: Any, enable_logging: bool, use_trap: bool, parameters: dict[str, Any], config: Any
) -> Iterator[Any]:
    mark = request.node.get_closest_marker("celery")
    app = TestApp(
        set_as_current=False,
        enable_logging=enable_logging,
        config={**config, **(mark.kwargs if mark else {})},
        **(parameters or {}),
    )
    with setup_default_app(app, use_trap=use_trap):
        yield app


@pytest.fixture(scope="session")
def celery_session_app(
    request: Any, celery_config: Any, celery_parameters: Any, celery_enable_logging: bool, use_celery_app_trap: bool
) -> Iterator[Any]:
    """An application for the whole session."""
    with _create_app(request, celery_enable_logging, use_celery_app_trap, celery_parameters, celery_config) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture
def celery_app(
    request: Any, celery_config: Any, celery_parameters: Any, celery_enable_logging: bool, use_celery_app_trap: bool
) -> Iterator[Any]:
    """An application for one test."""
    with _create_app(request, celery_enable_logging, use_celery_app_trap, celery_parameters, celery_config) as app:
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    celery_session_app: Any,
    celery_includes: Any,
    celery_class_tasks: Any,
    celery_worker_pool: Any,
    celery_worker_parameters: Any,
) -> Iterator[Any]:
    """A worker for the session application's tasks."""
    for module in celery_includes:
        celery_session_app.loader.import_task_module(module)
    for class_task in celery_class_tasks:
        celery_session_app.register_task(class_task)
    with start_worker(celery_session_app, **{"pool": celery_worker_pool, **celery_worker_parameters}) as worker:
        yield worker


@pytest.fixture
def celery_worker(
    celery_app: Any, celery_includes: Any, celery_worker_pool: Any, celery_worker_parameters: Any
) -> Iterator[Any]:
    """A worker for the application's tasks."""
    for module in celery_includes:
        celery_app.loader.import_task_module(module)
    with start_worker(celery_app, **{"pool": celery_worker_pool, **celery_worker_parameters}) as worker:
        yield worker
