"""Starts the processes of applications: dispatchers, and the executors that these ask for.

The one place that imports both. A dispatcher is given what it needs of this module when it is started, so that
neither it nor an executor, nor the client that asks for a dispatcher, depends on the others' code.
"""

from __future__ import annotations

from typing import Any

import ray

from raycelery.dispatcher.actor import Dispatcher
from raycelery.dispatcher.executor_processes import Actors
from raycelery.executor.process import run
from raycelery.names import DISPATCHER_PREFIX, NAMESPACE, ON_HEAD
from raycelery.protocol.limits import Limits


def find_dispatcher(name: str, limits: Limits) -> Any:
    """Return the handle of an application's dispatcher, which is started if there is none.

    Arguments:
        name: the application's.
        limits: the bounds of a dispatcher that is started.
    """
    return (
        ray.remote(Dispatcher)
        .options(
            name=f"{DISPATCHER_PREFIX}{name}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            # Where the cluster's own books are: on any other node it would end before the cluster does, or keep it.
            resources=ON_HEAD,
            max_concurrency=1000,
            # What it was told is in its journal; a call that was under way is made again.
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(name, limits, Actors(find_dispatcher, run))
    )
