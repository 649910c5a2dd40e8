"""Applications with settings of their own; their executors end soon, for they share the test session's four CPUs."""

from __future__ import annotations

import time
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


#: Its executors stay as long as by default, so others get CPUs only because it gives them up.
north = Celery("north", set_as_current=False)
south = Celery("south", set_as_current=False)


@north.task(name="tuned.north_nap")
def north_nap(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


@south.task(name="tuned.south_nap")
def south_nap(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()
