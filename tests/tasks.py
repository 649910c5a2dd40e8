"""More tasks of the sample application: they record what happens to them, or behave badly."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Task, group

from tests.sample import add, app


def record(path: str, **fields: Any) -> None:
    """Append one line of JSON to a file that many processes write."""
    line = json.dumps({"pid": os.getpid(), **fields}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def records(path: Path | str) -> list[dict[str, Any]]:
    """Return what was recorded in a file."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_records(path: Path | str, count: int, seconds: float = 60) -> list[dict[str, Any]]:
    """Return what was recorded in a file once there are that many lines."""
    deadline = time.monotonic() + seconds
    while len(found := records(path)) < count:
        if time.monotonic() > deadline:
            raise AssertionError(f"{path} has {len(found)} records, not {count}: {found}")
        time.sleep(0.01)
    return found


def wait_for_file(path: str) -> None:
    """Return once a file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)


# -- canvas -----------------------------------------------------------------------------------------------------


@app.task(bind=True)
def stamps_of(self: Task) -> dict[str, Any]:
    return dict(self.request.stamps or {})


@app.task(bind=True)
def stamps_with(self: Task, others: list[Any]) -> list[Any]:
    return [*others, dict(self.request.stamps or {})]


@app.task(bind=True)
def growing(self: Task, value: int) -> int:
    self.add_to_chord(add.s(value, 0))
    return 0


@app.task(bind=True)
def replaced_by_group(self: Task, count: int) -> Any:
    return self.replace(group(add.s(i, i) for i in range(count)))
