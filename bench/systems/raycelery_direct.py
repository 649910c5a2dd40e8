"""The same tasks after the import swap: no Redis, no worker, a Ray."""

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
    # One per application of the workload, by a name by which executors can import it from here.
    globals().update({f"app_{name}": _make(name) for name in setup_from_environment()["applications"]})


class System(celery_like.CelerySystem):
    """raycelery on a Ray of its own; an application has its own dispatcher."""

    name = "raycelery"

    def start(self) -> None:
        ray_cluster.start(self)
        from raycelery.client import session

        # Before Ray goes.
        self.stack.callback(session.shutdown)
        self.apps = {name: globals()[f"app_{name}"] for name in self.setup["applications"]}
        for app in self.apps.values():
            app.client  # noqa: B018 - connects, so that no call has to

    @contextlib.contextmanager
    def measuring(self) -> Iterator[list[Any]]:
        from raycelery.rightsize.gathering import Gatherer

        # The figures of a sample are those of one application.
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
