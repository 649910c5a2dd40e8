"""Starts the head node of a Ray cluster on this machine, by ``ray start --head``, and ends it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from raycelery.cluster import reaching
from raycelery.cluster.process import PATIENCE
from raycelery.errors import DispatcherUnreachable

#: Seconds for the cluster to start; for tasks to take note of its end before they are killed; for the rest of it.
START_SECONDS = 180.0
GRACE_SECONDS = 3.0
STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Head:
    """A head node that was started.

    Arguments:
        pid: of ``ray start``.
        address: of the cluster, for others to join it.
        dashboard: URL of Ray's dashboard; "" if there is none.
    """

    pid: int
    address: str
    dashboard: str


def start(num_cpus: int | None, port: int | None, log: Path, *, dashboard: bool = False) -> Head:
    """Start a head node in a session of its own.

    Arguments:
        num_cpus: that it says to have; None: those of the machine.
        port: that it listens at; None: one that is free. (Ray's own default is also Redis's.)
        log: file for what ``ray start`` says.
        dashboard: whether to start Ray's dashboard, which has the Job API.

    Raises:
        DispatcherUnreachable: it does not start; with what ``ray start`` has said.
    """
    port, web = _free(port), _free(None)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--block",
               "--dashboard-agent-listen-port=0", f"--include-dashboard={'true' if dashboard else 'false'}",
               *([f"--dashboard-port={web}"] if dashboard else []),
               *([] if num_cpus is None else [f"--num-cpus={num_cpus}"])]  # fmt: skip
    reaching.have_token()
    environment = {**PATIENCE, **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}}
    # `python` of what is run there is this one, in a virtual environment that was not activated, too.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            cwd=Path.home(), start_new_session=True,
        )  # fmt: skip
    try:
        _see_it_start(process, log)
    except BaseException:  # Ctrl-C, too, leaves none half started
        stop(process.pid)
        raise
    return Head(process.pid, f"127.0.0.1:{port}", f"http://127.0.0.1:{web}" if dashboard else "")


@contextlib.contextmanager
def running(num_cpus: int | None) -> Iterator[Head]:
    """Run a head node with Ray's dashboard for a block.

    Raises:
        DispatcherUnreachable: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="raycelery-") as folder:
        found = start(num_cpus, None, Path(folder) / "head.log", dashboard=True)
        try:
            yield found
        finally:
            stop(found.pid)


def _see_it_start(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in log.read_text(encoding="utf-8", errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["ray start says nothing"]
            told = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)] or lines
            raise DispatcherUnreachable(f"the cluster does not start: {told[-1]} (more in {log})")
        time.sleep(_LOOK_SECONDS)


def stop(pid: int) -> None:
    """End a head node, and all that runs on it."""
    try:
        process = psutil.Process(pid)
        # `ray start --block` ends what it has started.
        children = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return  # it has ended by itself, and what it had started with it
    _, left = psutil.wait_procs([process, *children], timeout=GRACE_SECONDS)
    # Ray waits half a minute for its workers, and a dispatcher, which goes on from its journal, ends only when killed.
    for one in left:
        with contextlib.suppress(psutil.Error):
            if one.cmdline()[:1] and one.cmdline()[0].startswith("ray::"):
                one.kill()
    _, left = psutil.wait_procs(left, timeout=STOP_SECONDS)
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
