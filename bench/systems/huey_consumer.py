"""huey on Redis: as many worker processes as Celery has children."""

from __future__ import annotations

import os
import sys
from typing import Any

from huey import RedisHuey

from ..calls import Call
from ..record import recorded
from . import base, redis

#: Tasks by target.
tasks: dict[str, Any] = {}
#: The instance that the consumer runs.
huey: Any = None


def register() -> None:
    """Make the workload's functions tasks."""
    global huey
    huey = RedisHuey("bench", url=redis.url(), blocking=True)
    for target in base.setup_from_environment()["targets"]:
        tasks[target] = huey.task(name=target.replace(":", "_").replace(".", "_"))(recorded(target))


if redis.URL_VARIABLE in os.environ:
    register()


class System(base.System):
    """Messages and results as pickles, huey's own way; results are polled for, as it does."""

    name = "huey"

    def start(self) -> None:
        redis.start(self)
        register()
        command = [sys.executable, "-m", "huey.bin.huey_consumer", f"{__name__}.huey",
                   "--workers", str(self.fleet.slots), "--worker-type", "process", "--quiet",
                   "--delay", "0.01", "--max-delay", "0.05"]  # fmt: skip
        self.process(command, "huey.log")

    def submit(self, call: Call) -> Any:
        return tasks[call.target](*call.args)

    def take(self, handle: Any) -> Any:
        return handle.get(blocking=True, timeout=base.TIMEOUT, backoff=1.0, max_delay=0.001)
