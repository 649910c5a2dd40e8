"""Celery as it is run today: a Redis, and a worker with prefork children."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from . import celery_like, redis

app: Any = Celery("bench", set_as_current=False)
if redis.URL_VARIABLE in os.environ:  # it was started: this is a worker
    app.conf.update(broker_url=redis.url(), result_backend=redis.url())
    celery_like.register(app)


class System(celery_like.CelerySystem):
    """Prefork children on a Redis; every application uses the one queue, as a fleet that is shared does."""

    name = "celery"
    #: More arguments of ``celery worker``.
    arguments: tuple[str, ...] = ()

    def start(self) -> None:
        url = redis.start(self)
        app.conf.update(broker_url=url, result_backend=url)
        celery_like.register(app)
        self.apps = dict.fromkeys(self.setup["applications"], app)
        self.start_worker()

    def start_worker(self) -> None:
        """Start the worker, with the Redis and all else it needs up."""
        # As root, Celery takes no pickle unforced. A line per task, which it writes at INFO, would not be fair.
        os.environ["C_FORCE_ROOT"] = "1"
        pidfile: Path = self.scratch / "worker.pid"
        command = [sys.executable, "-m", "celery", "-A", __name__, "worker",
                   "-c", str(self.fleet.slots), "-l", "WARNING", "--without-gossip", "--without-mingle",
                   "--pidfile", str(pidfile), *self.arguments]  # fmt: skip
        self.up(self.process(command, "celery.log"), "celery.log", pidfile.exists)
