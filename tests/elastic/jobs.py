"""Tasks for clusters that grow and shrink."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray

from raycelery import Celery
from raycelery.client.session import of
from raycelery.protocol import questions

app = Celery("elastic", ray_idle_seconds=1)


@app.task(num_cpus=2)
def work(seconds: float) -> dict[str, Any]:
    """Take some time, and tell where and when."""
    began = time.time()
    time.sleep(seconds)
    return {"node": ray.get_runtime_context().get_node_id(), "began": began, "ended": time.time()}


@app.task(num_cpus=2)
def until_there(path: str, number: int = 0) -> str:
    """Run until a file is there, and tell where."""
    node = str(ray.get_runtime_context().get_node_id())
    Path(f"{path}.began{number or ''}").touch()
    while not Path(path).exists():
        time.sleep(0.05)
    return node


@app.task(num_cpus=2, acks_late=True)
def second_time(path: str) -> str:
    """Run for ever at first, and tell where it ran the second time."""
    began = Path(f"{path}.began")
    if not began.exists():
        began.touch()
        time.sleep(3600)
    return str(ray.get_runtime_context().get_node_id())


@app.task
def large() -> str:
    """Return a value that is kept in the object store."""
    return "so much " * 500_000


def overview() -> dict[str, Any]:
    """What `raycelery status` shows."""
    return of(app).client.call(questions.Overview())
