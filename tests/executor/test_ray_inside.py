"""Tasks that start Ray work themselves, while a backlog wants all CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import group

from tests import support
from tests.executor import inside

SECONDS = 100


@pytest.fixture
def backlog(ray_session: support.RaySession) -> Iterator[None]:
    """More than all CPUs can do while the test runs."""
    waiting = group(inside.busy.s(0.2) for _ in range(2000)).apply_async()
    waiting[0].get(timeout=SECONDS)
    yield
    assert not waiting.ready()
    inside.app.control.purge()


@pytest.mark.usefixtures("backlog")
@pytest.mark.parametrize("options", [{}, {"num_cpus": 0}, {"executor": "function"}])
def test_ray_tasks_of_a_task_find_room(options: dict[str, Any]) -> None:
    result = inside.doubled.apply_async((21,), priority=9, **options)
    assert result.get(timeout=SECONDS) == 42


@pytest.mark.usefixtures("backlog")
def test_ray_data_inside_a_task_finds_room() -> None:
    assert inside.scored.apply_async(priority=9).get(timeout=SECONDS) == 1000
