"""Applications with settings of their own; their executors end soon, for they share the test session's four CPUs."""

from __future__ import annotations

from typing import Any

from celery import Task

from raycelery import Celery


def tuned(name: str, **settings: Any) -> Celery:
    """Make an application that leaves the process's current one alone."""
    app = Celery(name, set_as_current=False)
    app.conf.update(ray_idle_seconds=1.0, **settings)
    return app


extended = tuned("extended", result_extended=True)


@extended.task(bind=True)
def extended_stamps(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return dict(self.request.stamps or {})
