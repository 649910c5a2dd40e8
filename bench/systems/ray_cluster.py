"""A Ray of our own, of one node or of several on this machine."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from .base import postponed

if TYPE_CHECKING:
    from .base import System

#: Ray takes 30 % of the memory unless told; the largest workload needs less, and other systems run beside it.
_OBJECT_STORE_BYTES = 2 * 1024**3
_SMALL_STORE_BYTES = 100 * 1024**2


def start(system: System) -> None:
    """Start Ray as the system's fleet says, and connect this process to it; it ends with the system."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    fleet = system.fleet
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "raycelery"}
    node = {"include_dashboard": False}
    if fleet.nodes == 1:
        system.stack.callback(ray.shutdown)
        with postponed(signal.SIGTERM):  # Ray forgets what it has started where its start is interrupted
            ray.init(
                address="local",
                num_cpus=fleet.cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=str(system.scratch),
                **node,
                **quiet,
            )
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    system.stack.callback(cluster.shutdown)
    for number in range(fleet.nodes):
        head = {"temp_dir": str(system.scratch), **node} if not number else {}
        with postponed(signal.SIGTERM):
            cluster.add_node(num_cpus=fleet.cpus, object_store_memory=_SMALL_STORE_BYTES, **head)
    system.stack.callback(ray.shutdown)
    ray.init(address=cluster.address, **quiet)
