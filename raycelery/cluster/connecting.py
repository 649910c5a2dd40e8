"""Joining the Ray cluster that is named, or starting a Ray of the process's own where none is.

A cluster is named by ``ray_address``, by ``address`` in ``ray_init`` or by ``RAY_ADDRESS``. Where it is not, Ray is
started here, whatever other Rays run on the machine: ``ray.init()`` would join what a file in Ray's temporary folder
names, and such a file outlives the cluster that wrote it.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from raycelery.cluster import address, local, process, reaching
from raycelery.cluster.slim import slim
from raycelery.errors import DispatcherGone, DispatcherUnreachable
from raycelery.names import NAMESPACE

if TYPE_CHECKING:
    from celery import Celery

#: Arguments of ``ray.init`` that describe a Ray to be started: it cannot join a cluster with them.
_STARTING = frozenset({
    "_enable_object_reconstruction", "_memory", "_node_name", "_plasma_directory", "_system_config", "_temp_dir",
    "dashboard_host", "dashboard_port", "include_dashboard", "labels", "num_cpus", "num_gpus", "object_store_memory",
    "resources",
})  # fmt: skip
#: Commands of ``celery`` that are about what goes on elsewhere.
_LOOKING = frozenset({"control", "events", "flower", "inspect", "list", "purge", "result", "status"})
#: What Ray says when one of its processes does not come up in time.
_SLOW = re.compile(r"timed out during startup|Failed to start GCS|may not have started")


def named(app: Celery) -> str | None:
    """Return the address of the cluster that the application or its environment names; None: a Ray of its own.

    Raises:
        OptionError: it is no address of a cluster.
    """
    name, found = "ray_address", app.conf.ray_address or (app.conf.ray_init or {}).get("address")
    if not found:
        name, found = "RAY_ADDRESS", os.environ.get("RAY_ADDRESS")
    if not found:
        return None
    address.check(name, found)
    return None if found == address.LOCAL else str(found)


def connect(app: Celery) -> bool:
    """Have this process use Ray; return whether that Ray was started by this process, and ends with it.

    Raises:
        DispatcherUnreachable: the cluster cannot be joined, or Ray does not start here; in a sentence with the remedy.
        OptionError: the address is none of a cluster.
    """
    import ray

    if ray.is_initialized():
        see_that_it_is_there()
        node = ray._private.worker._global_node
        return node is not None and bool(node.is_head())
    cluster = named(app)
    # What tasks print comes from the dispatcher (raycelery.logs.lines); Ray would show it twice, and only to the
    # first program.
    arguments: dict[str, Any] = {"namespace": NAMESPACE, **(app.conf.ray_init or {}), "log_to_driver": False}
    if cluster is None:
        if _in_a_command_that_looks():
            raise DispatcherUnreachable(nothing_to_ask())
        _start(arguments)
    else:
        _join(cluster, arguments)
    return cluster is None


def _in_a_command_that_looks() -> bool:
    """Whether this is one of Celery's commands that ask for what goes on elsewhere, or end it."""
    celery: Any = sys.modules.get("celery.bin.celery")
    context = celery and celery.click.get_current_context(silent=True)
    return bool(context) and context.info_name in _LOOKING and context.find_root().command is celery.celery


def see_that_there_is_one(app: Celery) -> None:
    """Refuse to go on where only a Ray of this process's own, started now, could answer: it would know of nothing.

    Raises:
        DispatcherUnreachable: no cluster is named, and this process is connected to none.
    """
    import ray

    if ray.is_initialized() or named(app) is not None:
        return
    raise DispatcherUnreachable(nothing_to_ask())


def nothing_to_ask() -> str:
    """Say that no cluster is named, and what could be."""
    others = [str(one) for one in local.running()]
    known = f"; running on this machine: {', '.join(others)}" if others else ""
    return f"no cluster is named: set RAY_ADDRESS, or ray_address in the application's settings{known}"


def see_that_it_is_there() -> None:
    """Ask whether the cluster that this process is connected to still runs; Ray itself finds out after a minute.

    Raises:
        DispatcherUnreachable: it does not, or this process is connected to it as a Ray Client.
    """
    import ray

    if reaching.by_ray_client():
        raise DispatcherUnreachable(
            "this process is connected to its cluster through Ray Client (ray.init('ray://...')), with which an "
            f"application's dispatcher cannot be reached: {address.NO_CLIENT}"
        )
    there = ray.get_runtime_context().gcs_address
    try:
        reaching.knock(there)
    except OSError as exc:
        # A Ray of this process's own does not come back; the head of a cluster may.
        node = ray._private.worker._global_node
        kind = DispatcherGone if node is not None and node.is_head() else DispatcherUnreachable
        raise kind(
            f"the Ray cluster at {there} that this process was connected to is gone ({exc}): restart the process"
        ) from exc


def _join(cluster: str, arguments: dict[str, Any]) -> None:
    import ray

    found = _found(arguments.get("_temp_dir")) if cluster == address.AUTO else cluster
    said = repr(cluster) if cluster == found else f"{cluster!r} ({found})"
    reaching.see_that_it_takes_us(found, said)
    joining = {key: value for key, value in arguments.items() if key not in _STARTING}
    try:
        with process.prepared():
            ray.init(**{**joining, "address": found})
    except Exception as exc:
        if _is_argument(exc):
            raise
        raise DispatcherUnreachable(reaching.reason(exc, said)) from exc


def _found(temp_dir: str | None) -> str:
    """Return the address of the cluster that runs on this machine.

    Raises:
        DispatcherUnreachable: none does.
    """
    from ray._private import services

    try:
        return str(services.canonicalize_bootstrap_address(address.AUTO, temp_dir))
    except ConnectionError as exc:
        raise DispatcherUnreachable(
            f"ray_address='auto' finds no Ray cluster on {socket.gethostname()}: start one with "
            "'ray start --head', name its address, or unset it to run Ray inside this process"
        ) from exc


def _start(arguments: dict[str, Any]) -> None:
    import ray

    # "local" is more than no address: without one, ray.init() looks for a cluster to join.
    arguments = {"include_dashboard": False, **arguments, "address": address.LOCAL}
    for name, value in process.PATIENCE.items():
        os.environ.setdefault(name, value)
    ray._raylet.Config.initialize("")  # it has read the environment when it was imported
    try:
        with process.prepared(), slim(dashboard=bool(arguments["include_dashboard"])):
            process.in_lasting_thread(lambda: ray.init(**arguments))
    except Exception as exc:
        if _is_argument(exc):
            raise
        folder = arguments.get("_temp_dir") or os.path.join(
            os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray"
        )
        logs = os.path.join(folder, "session_latest", "logs")
        if _SLOW.search(str(exc)):
            raise DispatcherUnreachable(
                f"Ray has not started in time on this machine (load {os.getloadavg()[0]:.0f} on {os.cpu_count()} "
                f"CPUs; its logs are in {logs}): try again when it is less busy, or keep a cluster running with "
                "'raycelery up' and name its address"
            ) from exc
        raise DispatcherUnreachable(
            f"Ray does not start on this machine: {reaching.first_line(exc)} (its logs are in {logs})"
        ) from exc
    local.started(ray.get_runtime_context().gcs_address)


def _is_argument(exc: Exception) -> bool:
    """Whether it is about an argument in ``ray_init``: Ray's own words are then the clearest."""
    return isinstance(exc, (ValueError, TypeError)) or "keyword argument" in str(exc)
