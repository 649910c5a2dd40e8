"""Tasks of the sample application that wait for their subtasks."""

from __future__ import annotations

import os

from celery import group
from celery.exceptions import SoftTimeLimitExceeded, TimeoutError
from celery.result import allow_join_result

from tests import records
from tests.sample import add, app
from tests.tasks import die, hold, once


@app.task
def sum_of_children(path: str, count: int, seconds: float = 0.0) -> int:
    children = [once.delay(path, i, seconds) for i in range(count)]
    return sum(child.get(disable_sync_subtasks=False) for child in children)


@app.task(num_cpus=2)
def wide_parent(count: int) -> list[int]:
    with allow_join_result():
        return list(group(narrow_child.s(i) for i in range(count)).apply_async().get())


@app.task(num_cpus=0.5)
def narrow_child(value: int) -> int:
    return int(wide_child.delay(value).get(disable_sync_subtasks=False))


@app.task(num_cpus=4)
def wide_child(value: int) -> int:
    return value * value


@app.task
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    children = [fibonacci.delay(n - 1), fibonacci.delay(n - 2)]
    return sum(child.get(disable_sync_subtasks=False) for child in children)


@app.task
def forbidden() -> int:
    """Waits as Celery says one must not."""
    return int(add.delay(1, 2).get())


@app.task
def impatient(path: str) -> str:
    child = hold.delay(f"{path}-held", f"{path}-go")
    try:
        child.get(timeout=0.3, disable_sync_subtasks=False)
    except TimeoutError:
        records.write(f"{path}-go")
        return str(child.get(disable_sync_subtasks=False))
    return "not in time"


@app.task(soft_time_limit=1.0)
def limited_parent(path: str) -> str:
    child = hold.delay(f"{path}-held", f"{path}-go")
    try:
        child.get(disable_sync_subtasks=False)
    except SoftTimeLimitExceeded:
        records.write(f"{path}-go")
        return "limited"
    return "not limited"


@app.task(max_concurrency=1)
def lonely_parent(value: int) -> int:
    return int(add.delay(value, 1).get(disable_sync_subtasks=False))


@app.task
def parent_of_held(held: str, go: str) -> str:
    return str(hold.delay(held, go).get(disable_sync_subtasks=False))


@app.task
def parent_of_death() -> None:
    die.delay(os.devnull).get(disable_sync_subtasks=False)
