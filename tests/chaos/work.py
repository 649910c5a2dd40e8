"""The application that is run while its processes are killed: its tasks leave a line each time that they begin."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from raycelery import Celery

app = Celery("chaos")
# They are killed more often than any task that is to blame for it.
app.conf.ray_max_deliveries = 1000
# What the tasks that are killed log is long.
app.conf.ray_init = {"log_to_driver": False}


def note(path: str, index: int) -> None:
    """Append a line in one write, which a kill cannot cut."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b"%d %d\n" % (index, os.getpid()))
    finally:
        os.close(descriptor)


def begun(path: str) -> Counter[int]:
    """Return how often each task began."""
    return Counter(index for index, _ in _lines(path))


def pids(path: str) -> set[int]:
    """Return the processes in which tasks began."""
    return {pid for _, pid in _lines(path)}


def _lines(path: str) -> list[tuple[int, int]]:
    text = Path(path).read_text() if os.path.exists(path) else ""
    return [(int(index), int(pid)) for index, pid in (line.split() for line in text.splitlines())]


@app.task
def once(path: str, index: int, seconds: float) -> int:
    """May begin once."""
    note(path, index)
    time.sleep(seconds)
    return index


@app.task(acks_late=True, reject_on_worker_lost=True)
def again(path: str, index: int, seconds: float) -> int:
    """May begin again, and must end."""
    note(path, index)
    time.sleep(seconds)
    return index


@app.task(acks_late=True, reject_on_worker_lost=True)
def collect(values: list[int], path: str) -> list[int]:
    """Take the results of a chord's header."""
    note(path, -1)
    return values
