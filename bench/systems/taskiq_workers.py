"""taskiq on Redis: as many worker processes as Celery has children, one task at a time each."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from ..calls import Call
from ..record import recorded
from . import base, redis

#: Tasks by target.
tasks: dict[str, Any] = {}
#: The broker that the workers run.
broker: Any = None


def register() -> None:
    """Make the workload's functions tasks."""
    global broker
    backend: Any = RedisAsyncResultBackend(redis_url=redis.url(), socket_timeout=None)
    # redis-py's own limit would end the workers' blocking calls early.
    broker = ListQueueBroker(url=redis.url(), socket_timeout=None).with_result_backend(backend)
    for target in base.setup_from_environment()["targets"]:
        tasks[target] = broker.task(task_name=target)(recorded(target))


if redis.URL_VARIABLE in os.environ:
    register()


class System(base.System):
    """An asynchronous client that waits until each submission is confirmed."""

    name = "taskiq"

    def start(self) -> None:
        redis.start(self)
        register()
        self._loop = asyncio.new_event_loop()
        self.stack.callback(self._loop.close)
        self._loop.run_until_complete(broker.startup())
        self.stack.callback(lambda: self._loop.run_until_complete(broker.shutdown()))
        command = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker",
                   "--workers", str(self.fleet.slots), "--max-threadpool-threads", "1",
                   "--max-async-tasks", "1", "--log-level", "WARNING"]  # fmt: skip
        self.process(command, "taskiq.log")

    def submit(self, call: Call) -> Any:
        return self._loop.run_until_complete(tasks[call.target].kiq(*call.args))

    def take(self, handle: Any) -> Any:
        waiting = handle.wait_result(check_interval=0.001, timeout=base.TIMEOUT)
        result = self._loop.run_until_complete(waiting)
        result.raise_for_error()
        return result.return_value
