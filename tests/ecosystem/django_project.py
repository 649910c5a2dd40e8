"""A Django project's application: results in its database, structlog's context in its tasks."""

from __future__ import annotations

import os
from typing import Any

import structlog
from django_structlog.celery.steps import DjangoStructLogInitStep

from raycelery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.ecosystem.settings")
app = Celery("ecosystem-django", set_as_current=False)
app.conf.update(result_backend="django-db", ray_keep_result_backend=True, result_extended=True, ray_idle_seconds=5.0)
app.steps["worker"].add(DjangoStructLogInitStep)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(values: list[int]) -> int:
    return sum(values)


@app.task
def context() -> dict[str, Any]:
    return {name: str(value) for name, value in structlog.contextvars.get_contextvars().items()}
