"""Finds out whether the cluster has an autoscaler, and which nodes it may add.

Three places tell: the cluster configuration in Ray's GCS, where whoever manages the cluster put one; the file that the
head's own autoscaler reads (``ray up``, ``ray start --autoscaling-config``; see
https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html); and, where the autoscaler runs
beside the head in a container of its own, as KubeRay has it, the ``RayCluster`` that it reads through Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray
import yaml

from raycelery.dispatcher import steady
from raycelery.reasons import reason_of
from raycelery.scheduler.events import AutoscalerFound
from raycelery.scheduler.model import NodeType

if TYPE_CHECKING:
    from raycelery.scheduler.scheduler import Scheduler

logger = logging.getLogger(__name__)

#: Seconds between looks: configurations change rarely.
_LOOK_SECONDS = 10.0
#: Seconds between lines in the log about what waits for nodes.
_SAY_SECONDS = 10.0
#: Resources that no request names.
_UNASKED = ("object_store_memory",)
#: The programs that the head starts as its autoscaler.
_MONITORS = ("autoscaler/_private/monitor.py", "autoscaler/v2/monitor.py")
_KUBERNETES_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Autoscaler:
    """Tells a scheduler of the cluster's autoscaler, and the log what waits for its nodes.

    Arguments:
        scheduler: that is told.
        on_change: called when there may be something for the scheduler to decide.
    """

    def __init__(self, scheduler: Scheduler, on_change: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._on_change = on_change
        self._finder = _Finder()
        self._looked = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._found: AutoscalerFound | None = None
        #: What was said last, and when.
        self._said = ""
        self._said_at = float("-inf")

    def look(self) -> None:
        """Look for it, if somebody waits for nodes; to be called regularly, and when the dispatcher starts."""
        now = time.monotonic()
        first = self._looked == float("-inf")
        if self._looking is None and (first or (self._scheduler.view.starved and now - self._looked >= _LOOK_SECONDS)):
            self._looked = now
            self._looking = asyncio.get_running_loop().create_task(self._look())
        self._say(now)

    async def _look(self) -> None:
        try:
            # Files, processes and servers: not for the thread that answers everybody.
            found = await asyncio.get_running_loop().run_in_executor(None, self._finder.find)
        except Exception as exc:  # whatever Ray or Kubernetes answer, it is tried again
            logger.warning("cannot find out about the cluster's autoscaler: %s", reason_of(exc))
            return
        finally:
            self._looking = None
        if found is not None and not _same(found, self._found):
            self._found = found
            logger.info("the cluster has an autoscaler: %s", _in_words(found))
            self._scheduler.handle(found, steady.now())
            self._on_change()

    def _say(self, now: float) -> None:
        said = self._scheduler.view.growth
        if said != self._said and (not self._said or now - self._said_at >= _SAY_SECONDS):
            self._said, self._said_at = said, now
            logger.info("%s", said or "no task waits for a node any more")


class _Finder:
    """Looks in all places; to be used by one thread at a time."""

    def __init__(self) -> None:
        #: The configuration file of the head's own autoscaler; None until it was looked for. Empty: it has none, or
        #: it runs elsewhere.
        self._file: str | None = None
        self._elsewhere = False
        self._read: tuple[float, AutoscalerFound] | None = None

    def find(self) -> AutoscalerFound | None:
        """Return what is known of it; None where there seems to be none."""
        reported = _reported()
        if reported is not None:
            return reported
        if self._file is None:
            self._file, self._elsewhere = _own_file()
        if self._file:
            changed = os.stat(self._file).st_mtime
            if self._read is None or self._read[0] != changed:
                self._read = changed, described(yaml.safe_load(Path(self._file).read_text()))
            return self._read[1]
        if self._elsewhere and _is_at_work():
            return _of_kuberay() or AutoscalerFound(None)
        return None


def _same(one: AutoscalerFound, other: AutoscalerFound | None) -> bool:
    return other is not None and (one.node_types, one.maximum) == (other.node_types, other.maximum)


def _in_words(found: AutoscalerFound) -> str:
    if found.node_types is None:
        return "its node types are not known, so a task that asks for more than any of them has waits for ever"
    return f"its node types are {', '.join(f'{one.name} ({dict(one.resources)})' for one in found.node_types)}"


def described(config: Mapping[str, Any]) -> AutoscalerFound:
    """Return what a cluster configuration, as ``ray up`` takes it, says.

    Arguments:
        config: with ``available_node_types``, ``head_node_type`` and ``max_workers``.
    """
    types = []
    most = config.get("max_workers")
    for name, one in config.get("available_node_types", {}).items():
        maximum = one.get("max_workers", 0 if name == config.get("head_node_type") else most)
        if maximum == 0:
            continue
        if not one.get("resources"):
            return AutoscalerFound(None, most)  # its provider knows
        types.append(NodeType(name, _asked(one["resources"]), maximum))
    return AutoscalerFound(types, most)


def _asked(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(amount) for name, amount in resources.items() if name not in _UNASKED}


def _reported() -> AutoscalerFound | None:
    """Return what is in the GCS."""
    state = ray._private.state.state
    # All versions have it, but it is Ray's own.
    config = state.get_cluster_config() if hasattr(state, "get_cluster_config") else None
    groups = [] if config is None else [group for group in config.node_group_configs if group.resources]
    if not any(group.max_count for group in groups):
        return None
    types = [
        NodeType(group.name, _asked(group.resources), None if group.max_count < 0 else group.max_count)
        for group in groups
    ]
    return AutoscalerFound(types)


def _own_file() -> tuple[str, bool]:
    """Return the configuration file of this head's autoscaler, and whether it may run where it cannot be seen."""
    port = f":{ray.get_runtime_context().gcs_address.rpartition(':')[2]}"
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        ours = any(one.startswith("--gcs-address=") and one.endswith(port) for one in arguments)
        if ours and any(one.endswith(_MONITORS) for one in arguments):
            files = [one.partition("=")[2] for one in arguments if one.startswith("--autoscaling-config=")]
            return (os.path.expanduser(files[0]) if files else ""), False
    return "", "KUBERNETES_SERVICE_HOST" in os.environ


def _is_at_work() -> bool:
    """Return whether an autoscaler has told the GCS of its work."""
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
    from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

    if _internal_kv_get(DEBUG_AUTOSCALING_STATUS):
        return True
    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status())
    return bool(reply.autoscaling_state.autoscaler_state_version > 0)


def _of_kuberay() -> AutoscalerFound | None:
    """Return what the ``RayCluster`` says that this head is part of; None where there is none, or it is not told."""
    cluster = os.environ.get("RAY_CLUSTER_NAME")
    if not cluster or not _KUBERNETES_NAMESPACE.exists():
        return None
    from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer

    return described(AutoscalingConfigProducer(cluster, _KUBERNETES_NAMESPACE.read_text())())
