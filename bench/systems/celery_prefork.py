"""Stock Celery: a Redis, and a worker with a prefork pool."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from . import celery_like, redis

app: Any = Celery("bench", set_as_current=False)
if redis.URL_VARIABLE in os.environ:  # set by the benchmark, so this is a worker process
    app.conf.update(broker_url=redis.url(), result_backend=redis.url())
    celery_like.register(app)


class System(celery_like.CelerySystem):
    """One worker on a Redis; all applications use its queue, as on a shared fleet."""

    name = "celery"
    #: Additional arguments of ``celery worker``.
    arguments: tuple[str, ...] = ()

    def start(self) -> None:
        url = redis.start(self)
        app.conf.update(broker_url=url, result_backend=url)
        celery_like.register(app)
        self.apps = dict.fromkeys(self.setup["applications"], app)
        self.start_worker()

    def start_worker(self) -> None:
        """Start the worker and wait until it is ready. The Redis must be running."""
        # As root, Celery refuses pickle unless forced. At INFO it logs a line per task, which others do not.
        os.environ["C_FORCE_ROOT"] = "1"
        pidfile: Path = self.scratch / "worker.pid"
        command = [sys.executable, "-m", "celery", "-A", __name__, "worker",
                   "-c", str(self.fleet.slots), "-l", "WARNING", "--without-gossip", "--without-mingle",
                   "--pidfile", str(pidfile), *self.arguments]  # fmt: skip
        self.up(self.process(command, "celery.log"), "celery.log", pidfile.exists)
