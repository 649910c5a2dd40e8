"""A cluster on this machine that stays between runs: ``raycelery up`` starts it, ``raycelery down`` ends it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from raycelery.cluster import local, reaching
from raycelery.cluster.local import Local
from raycelery.cluster.process import PATIENCE
from raycelery.errors import DispatcherUnreachable

#: Seconds for the cluster to start, and to end before it is killed.
START_SECONDS = 180.0
STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.1


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
    port = _free(port)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--block",
               "--include-dashboard=false", "--dashboard-agent-listen-port=0",
               *([] if num_cpus is None else [f"--num-cpus={num_cpus}"])]  # fmt: skip
    reaching.have_token()
    environment = {**PATIENCE, **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}}
    local.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    log = local.folder() / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            cwd=Path.home(), start_new_session=True,
        )  # fmt: skip
    try:
        _see_it_start(process, log)
    except BaseException:  # Ctrl-C, too, leaves none half started
        _end(process.pid)
        raise
    created = psutil.Process(process.pid).create_time()
    found = Local(process.pid, created, f"127.0.0.1:{port}", "raycelery up", kept=True)
    local.write(found)
    return found


def _see_it_start(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text(encoding="utf-8", errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["ray start says nothing"]
            told = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)] or lines
            raise DispatcherUnreachable(f"the cluster does not start: {told[-1]} (more in {log})")
        time.sleep(_LOOK_SECONDS)


def stop(found: Local) -> None:
    """End the cluster that is kept, and all that runs in it."""
    _end(found.pid)
    (local.folder() / f"{found.pid}.json").unlink(missing_ok=True)


def _end(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        # `ray start --block` ends what it has started.
        children = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return  # it has ended by itself, and what it had started with it
    _, left = psutil.wait_procs([process, *children], timeout=STOP_SECONDS)
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def _free(port: int | None) -> int:
    with socket.socket() as sock:
        try:
            sock.bind(("", port or 0))
        except OSError as exc:
            raise DispatcherUnreachable(f"port {port} is not free ({exc}): choose another, or none") from exc
        return int(sock.getsockname()[1])
