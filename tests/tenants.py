"""An application whose signal handlers pass a tenant and a trace on from message to message."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from celery import Task, current_task
from celery.signals import before_task_publish, task_postrun, task_prerun

from raycelery import Celery

app = Celery("tenants", set_as_current=False)
app.conf.ray_idle_seconds = 1.0

_tenant: ContextVar[str | None] = ContextVar("tenant", default=None)
_run = threading.local()


@contextlib.contextmanager
def tenant(name: str) -> Iterator[None]:
    """Publish for a tenant."""
    token = _tenant.set(name)
    try:
        yield
    finally:
        _tenant.reset(token)


@before_task_publish.connect
def _pass_on(sender: str, headers: dict[str, Any], **_: Any) -> None:
    if sender.startswith(__name__):
        # The tenant is read from the request of the task that runs, the trace from what lasts while it runs.
        headers["tenant"] = current_task.request.get("tenant") if current_task else _tenant.get()
        headers["trace"] = [*getattr(_run, "trace", []), sender.rpartition(".")[2]]


@task_prerun.connect
def _begin(task: Task, **_: Any) -> None:
    _run.trace = task.request.get("trace") or []


@task_postrun.connect
def _end(**_: Any) -> None:
    del _run.trace


def _context(task: Task) -> list[Any]:
    return [task.request.get("tenant"), *(task.request.get("trace") or [])]


@app.task(bind=True)
def part(self: Task, number: int) -> int:
    return number


@app.task(bind=True, executor="function")
def lone(self: Task, number: int) -> int:
    return number


@app.task(bind=True)
def broken(self: Task) -> None:
    raise ValueError("broken")


@app.task(bind=True)
def body(self: Task, parts: list[int]) -> list[Any]:
    return [sum(parts), _context(self)]


@app.task(bind=True)
def after(self: Task, of_body: list[Any]) -> list[Any]:
    return [*of_body, _context(self)]


@app.task(bind=True)
def mourn(self: Task, task_id: str, path: str) -> None:
    new = Path(f"{path}.new")
    new.write_text(" ".join(map(str, _context(self))))
    new.rename(path)
