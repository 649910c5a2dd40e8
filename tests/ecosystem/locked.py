"""An application with packages that keep locks and schedules in a Redis."""

from __future__ import annotations

import os
from pathlib import Path

from celery_once import QueueOnce
from celery_singleton import Singleton

from raycelery import Celery
from tests.records import wait_for_file

URL = os.environ["CELERY_ECOSYSTEM_REDIS"]
app = Celery("ecosystem-locked", set_as_current=False)
app.conf.update(
    ray_idle_seconds=5.0,
    singleton_backend_url=URL,
    redbeat_redis_url=URL,
    ONCE={"backend": "celery_once.backends.Redis", "settings": {"url": URL, "default_timeout": 600}},
    beat_schedule={
        "ticking": {"task": "ecosystem.tick", "schedule": 1, "args": (os.environ.get("CELERY_ECOSYSTEM_TICKS", ""),)}
    },
)


@app.task(base=Singleton, name="ecosystem.single")
def single(go: str) -> str:
    wait_for_file(go)
    return go


@app.task(base=QueueOnce, name="ecosystem.once", once={"graceful": False})
def once(go: str) -> str:
    wait_for_file(go)
    return go


@app.task(name="ecosystem.tick")
def tick(path: str) -> None:
    Path(path).touch()
