"""Tasks that use Ray themselves, and others that keep all CPUs busy."""

from __future__ import annotations

import time
from typing import Any

import ray

from raycelery import Celery

app = Celery("inside")


@ray.remote
def double(value: int) -> int:
    return 2 * value


@app.task
def doubled(value: int) -> Any:
    """Have a plain Ray task do it."""
    return ray.get(double.remote(value))


@app.task
def scored() -> int:
    """Have Ray Data do something."""
    import ray.data

    return int(ray.data.range(1000).map_batches(lambda batch: batch).count())


@app.task
def busy(seconds: float) -> None:
    time.sleep(seconds)
