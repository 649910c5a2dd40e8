"""The Rays that a user's programs run on this machine, written down in the user's own folder to be found there.

Each has a small file, ``~/.raycelery/clusters/PID.json`` (``$RAYCELERY_HOME`` in place of ``~/.raycelery``): a program
with a Ray inside writes it and removes it at its end, ``raycelery up`` writes one for the cluster that it starts.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)


@dataclass
class Local:
    """A Ray on this machine.

    Arguments:
        pid: of the program that it ends with.
        created: when that began, in seconds since the epoch; tells it from a later program of that pid.
        address: for others to join it.
        program: how it was called.
        kept: whether it was started by ``raycelery up``, to be used by several programs.
        applications: names of the dispatchers that the program has used.
    """

    pid: int
    created: float
    address: str
    program: str
    kept: bool = False
    applications: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = "started by 'raycelery up'" if self.kept else f"{self.program}, pid {self.pid}"
        return f"{self.address} ({what})"


#: What this process has started, guarded by the lock.
_own: Local | None = None
_lock = threading.Lock()


def folder() -> Path:
    """Return where the files are."""
    return Path(os.environ.get("RAYCELERY_HOME") or Path.home() / ".raycelery") / "clusters"


def write(local: Local) -> Path:
    """Write one down, readable for its user only.

    Raises:
        OSError: it cannot be written.
    """
    path = folder() / f"{local.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_suffix(f".{threading.get_ident()}")
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(local), file)
    scratch.replace(path)
    return path


def started(address: str) -> None:
    """Write down that this process has started a Ray."""
    global _own
    program = " ".join([os.path.basename(sys.argv[0] or sys.executable), *sys.argv[1:]])
    with _lock:
        _own = Local(os.getpid(), psutil.Process().create_time(), address, program)
        _try_to_write(_own)
    atexit.register(_remove, os.getpid())


def uses(application: str) -> None:
    """Add an application to what is written down of this process's Ray."""
    with _lock:
        if _own is not None and _own.pid == os.getpid() and application not in _own.applications:
            _own.applications.append(application)
            _try_to_write(_own)


def _try_to_write(local: Local) -> None:
    try:
        write(local)
    except OSError as exc:  # a home that is missing or read-only
        logger.info("'raycelery status' will not find the Ray of this process by itself: %s", exc)


def _remove(pid: int) -> None:
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            (folder() / f"{pid}.json").unlink()


def running() -> Iterator[Local]:
    """Yield the Rays whose programs run; files of others, which were killed, are removed."""
    for path in sorted(folder().glob("*.json")):
        try:
            local = Local(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as exc:
            logger.debug("%s is not readable: %s", path, exc)
            continue
        if _runs(local):
            yield local
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _runs(local: Local) -> bool:
    try:
        return bool(abs(psutil.Process(local.pid).create_time() - local.created) < 1)
    except psutil.Error:
        return False


def find(application: str) -> list[Local]:
    """Return the Rays in which that application can be: those of programs that use it, else those kept for any."""
    found = list(running())
    using = [one for one in found if application in one.applications]
    return using or [one for one in found if one.kept]
