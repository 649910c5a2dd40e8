"""dramatiq on Redis: as many processes as Celery has children, one thread each."""

from __future__ import annotations

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from ..calls import Call
from ..record import recorded
from . import base, redis

#: Tasks by target.
actors: dict[str, Any] = {}


def register() -> None:
    """Make the workload's functions actors."""
    # redis-py's own limit would end dramatiq's blocking calls early.
    broker = RedisBroker(url=redis.url(), socket_timeout=None)
    broker.add_middleware(Results(backend=RedisBackend(url=redis.url(), socket_timeout=None)))
    dramatiq.set_broker(broker)
    for target in base.setup_from_environment()["targets"]:
        name = target.replace(":", ".")
        actors[target] = dramatiq.actor(recorded(target), actor_name=name, store_results=True, max_retries=0)


if redis.URL_VARIABLE in os.environ:
    register()


class System(base.System):
    """Messages and results as JSON."""

    name = "dramatiq"

    def start(self) -> None:
        redis.start(self)
        register()
        command = [sys.executable, "-m", "dramatiq", __name__,
                   "--processes", str(self.fleet.slots), "--threads", "1"]  # fmt: skip
        self.process(command, "dramatiq.log")

    def submit(self, call: Call) -> Any:
        return actors[call.target].send(*call.args)

    def take(self, handle: Any) -> Any:
        return handle.get_result(block=True, timeout=int(base.TIMEOUT * 1000))
