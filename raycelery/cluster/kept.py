"""A cluster on this machine that stays between runs: ``raycelery up`` starts it, ``raycelery down`` ends it."""

from __future__ import annotations

import psutil

from raycelery.cluster import head, local
from raycelery.cluster.local import Local


def find() -> Local | None:
    """Return the cluster that is kept, or None."""
    return next((one for one in local.running() if one.kept), None)


def start(num_cpus: int | None, port: int | None) -> Local:
    """Start a cluster by ``ray start --head`` in a session of its own, and write it down.

    Arguments:
        num_cpus: that it says to have; None: those of the machine.
        port: that its head listens at; None: one that is free. (Ray's own default is also Redis's.)

    Raises:
        DispatcherUnreachable: it does not start; with what ``ray start`` has said.
    """
    local.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    started = head.start(num_cpus, port, local.folder() / "up.log")
    created = psutil.Process(started.pid).create_time()
    found = Local(started.pid, created, started.address, "raycelery up", kept=True)
    local.write(found)
    return found


def stop(found: Local) -> None:
    """End the cluster that is kept, and all that runs in it."""
    head.stop(found.pid)
    (local.folder() / f"{found.pid}.json").unlink(missing_ok=True)
