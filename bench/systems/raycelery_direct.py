"""raycelery in direct mode: no Redis and no worker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from raycelery import Celery

from ..calls import Call
from . import celery_like, ray_cluster
from .base import SETUP_VARIABLE, TIMEOUT, setup_from_environment


def _make(name: str) -> Celery:
    app = Celery(f"bench-{name}", set_as_current=False)
    celery_like.register(app)
    return app


if SETUP_VARIABLE in os.environ:
    # One per application of the workload, as a module global, so that executors can import it.
    globals().update({f"app_{name}": _make(name) for name in setup_from_environment()["applications"]})


class System(celery_like.CelerySystem):
    """raycelery on its own Ray; each application has its own dispatcher."""

    name = "raycelery"

    def start(self) -> None:
        ray_cluster.start(self)
        from raycelery.client import session

        # Runs before Ray is shut down.
        self.stack.callback(session.shutdown)
        self.apps = {name: globals()[f"app_{name}"] for name in self.setup["applications"]}
        for app in self.apps.values():
            app.client  # noqa: B018 - connects, so that no call has to

    @contextlib.contextmanager
    def measuring(self) -> Iterator[list[Any]]:
        from raycelery.rightsize.gathering import Gatherer

        # Only one application is measured.
        gatherer = Gatherer(next(iter(self.apps.values())), lambda measured, left: None)
        with gatherer.measuring(lease=TIMEOUT):
            yield gatherer.samples

    def options(self, call: Call) -> dict[str, Any]:
        if self.setup["targets"][call.target]:
            return {}
        options: dict[str, Any] = {"num_cpus": self.fleet.num_cpus_of(call)}
        if call.memory:
            options["memory"] = call.memory
        return options
