"""Starts a Ray cluster for a system: one or several nodes on this machine."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from .base import postponed

if TYPE_CHECKING:
    from .base import System

#: Bytes of the object store. Ray's default is 30 % of the memory; no workload needs so much.
_OBJECT_STORE_BYTES = 2 * 1024**3
_SMALL_STORE_BYTES = 100 * 1024**2


def start(system: System) -> None:
    """Start Ray with the nodes of the system's fleet, and connect this process to it; the system stops it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    fleet = system.fleet
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "raycelery"}
    node = {"include_dashboard": False}
    if fleet.nodes == 1:
        system.stack.callback(ray.shutdown)
        with postponed(signal.SIGTERM):  # if its start is interrupted, Ray does not stop what it has started
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
