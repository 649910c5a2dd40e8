"""A project whose tasks are looked at and steered by Celery's own tools."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Task
from celery.exceptions import Reject

from raycelery import Celery

app = Celery("shop", broker="redis://nowhere.invalid:1/0", backend="redis://nowhere.invalid:1/1", set_as_current=False)
app.conf.update(
    ray_idle_seconds=5.0,
    beat_schedule={
        "ticking": {"task": "shop.tick", "schedule": 0.2, "args": (os.environ.get("CELERY_SHOP_FILE", ""),)}
    },
)


@app.task(name="shop.add")
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task(name="shop.hold")
def hold(path: str, seconds: float = 60.0) -> str:
    """Say in a file that it runs, and run until there is another, ``<path>.go``."""
    Path(path).touch()
    deadline = time.monotonic() + seconds
    while not os.path.exists(f"{path}.go") and time.monotonic() < deadline:
        time.sleep(0.01)
    return "held"


@app.task(name="shop.progress", bind=True)
def progress(self: Task, done: int) -> int:
    """Tell listeners of it, in an event like Celery's and in one of the project's own kind."""
    self.send_event("task-progress", done=done)
    self.send_event("forecast-ready", zone="EWR")
    return done


@app.task(name="shop.fail", rate_limit="9/s")
def fail(code: int) -> None:
    raise ValueError(f"code {code}")


@app.task(name="shop.read")
def read(path: str, number: int) -> str:
    if not Path(path).exists():
        raise LookupError(f"number {number}: there is no {path}")
    return f"{number}: {Path(path).read_text()}"


@app.task(name="shop.again", bind=True, max_retries=2)
def again(self: Task) -> int:
    if not self.request.retries:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@app.task(name="shop.stubborn", bind=True, max_retries=1)
def stubborn(self: Task, path: str) -> str:
    """Succeed at the fourth try, though a call has two."""
    tries = (len(Path(path).read_text()) if Path(path).exists() else 0) + 1
    Path(path).write_text("." * tries)
    if tries < 4:
        raise self.retry(exc=ValueError(f"try {tries}"), countdown=0)
    return f"try {tries}"


@app.task(name="shop.die")
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="shop.refuse", acks_late=True)
def refuse() -> None:
    raise Reject("no", requeue=False)


@app.task(name="shop.length")
def length(values: Any) -> int:
    return len(values)


@app.task(name="shop.tick")
def tick(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{time.time()}\n")


@app.task(name="shop.pid")
def pid() -> int:
    return os.getpid()
