"""Applications with settings of their own; their executors end soon, for they share the test session's four CPUs."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded

from raycelery import Celery
from tests import tasks


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


east = Celery("east", set_as_current=False)


@north.task(name="tuned.north_nap")
def north_nap(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


@south.task(name="tuned.south_nap")
def south_nap(seconds: float) -> float:
    time.sleep(seconds)
    return time.time()


def half(seconds: float) -> tuple[float, int]:
    """Take half of the test session's Ray for a while; return when that was over, and the process."""
    time.sleep(seconds)
    return time.time(), os.getpid()


for _app in (north, south, east):
    _app.task(half, name="tuned.half", num_cpus=2, shared=False)


hurried = tuned("hurried", task_time_limit=1.0, task_soft_time_limit=0.3)


@hurried.task
def caught() -> str:
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "caught"
    return "slept"


@hurried.task
def hard() -> None:
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        time.sleep(60)


@hurried.task(soft_time_limit=50, time_limit=60)
def its_own() -> str:
    time.sleep(1.5)
    return "slept"


#: Its executors end as soon as they have nothing to do.
brief = tuned("brief")
brief.conf.ray_idle_seconds = 0.0
bounded = tuned("bounded", worker_concurrency=2)
queued = tuned("queued", ray_queues={"narrow": {"max_concurrency": 1}, "light": {"num_cpus": 0.5}})
#: Redis serves priority 0 first, RabbitMQ the highest; one at a time, so that their order is seen.
redis_like = tuned(
    "redis-like", broker_url=["redis://nowhere.invalid:1/0", "redis://nowhere.invalid:2/0"], worker_concurrency=1
)
amqp_like = tuned("amqp-like", broker_url="amqp://nowhere.invalid//", worker_concurrency=1)
full = tuned("full", ray_max_pending=100, ray_submit_timeout=0.5, worker_concurrency=1)
heavy = tuned("heavy", ray_max_pending_bytes=1_000_000, ray_submit_timeout=0.5, worker_concurrency=1)
patient = tuned("patient", ray_max_pending=100)

for _app in (bounded, queued, redis_like, amqp_like, full, heavy, patient):
    _app.task(tasks.span.run, name="span")
    _app.task(tasks.hold.run, name="hold")


@bounded.task
def bounded_child(value: int) -> int:
    return value


@bounded.task
def bounded_parent(count: int) -> int:
    children = [bounded_child.delay(1) for _ in range(count)]
    return sum(child.get(disable_sync_subtasks=False) for child in children)
