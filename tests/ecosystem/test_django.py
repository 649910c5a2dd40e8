"""Packages for Django projects: django-celery-results, django-structlog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chord

from tests.bridge import support as bridge

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60


@pytest.fixture(scope="module")
def django_project(environment: Any) -> Any:
    """The project's application, its database made."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from tests.ecosystem import django_project

    return django_project


def test_results_are_in_the_projects_database(django_project: Any) -> None:
    from django_celery_results.models import TaskResult

    result = django_project.add.delay(2, 3)
    assert result.get(timeout=SECONDS, interval=0.1) == 5
    row = TaskResult.objects.get(task_id=result.id)
    assert (row.status, row.result, row.task_name) == ("SUCCESS", "5", django_project.add.name)


def test_chords_are_counted_there(django_project: Any) -> None:
    result = chord([django_project.add.s(1, 1), django_project.add.s(2, 2)], django_project.total.s()).delay()
    assert result.get(timeout=SECONDS, interval=0.1) == 6


def test_structlogs_context_goes_with_the_task(django_project: Any) -> None:
    import structlog

    with structlog.contextvars.bound_contextvars(request_id="request-1"):
        result = django_project.context.delay()
        found = result.get(timeout=SECONDS, interval=0.1)
    assert found["request_id"] == "request-1"
    assert found["task_id"] == result.id


BRIDGE = """
import structlog
from django_structlog.celery.steps import DjangoStructLogInitStep

app.steps["worker"].add(DjangoStructLogInitStep)


@app.task
def context():
    return {name: str(value) for name, value in structlog.contextvars.get_contextvars().items()}


@app.task
def begin():
    structlog.contextvars.bind_contextvars(request_id="request-1")
    context.apply_async(task_id="the-child")
"""


def test_both_under_a_bridge(
    django_project: Any, redis_url: str, tmp_path: Path, bridge_worker: Callable[..., Any]
) -> None:
    from django_celery_results.models import TaskResult

    shop = bridge.write(tmp_path, redis_url, "django-db", more=BRIDGE)
    bridge_worker(shop, concurrency=1)
    begun = shop.send("begin")
    begun.get(timeout=SECONDS, interval=0.1)
    found = shop.app.AsyncResult("the-child").get(timeout=SECONDS, interval=0.1)
    assert found["request_id"] == "request-1"
    assert (found["task_id"], found["parent_task_id"]) == ("the-child", begun.id)
    assert TaskResult.objects.get(task_id="the-child").status == "SUCCESS"
