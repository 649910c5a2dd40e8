"""Files in which tasks record what they do, for tests to read; and waiting for what is to be read."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from tests.support import until


def write(path: str, **fields: Any) -> None:
    """Append one line of JSON to a file that many processes write."""
    line = json.dumps({"pid": os.getpid(), **fields}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(path: Path | str) -> list[dict[str, Any]]:
    """Return what was recorded in a file."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(path: Path | str, count: int) -> list[dict[str, Any]]:
    """Return what was recorded in a file once there are that many lines."""
    until(lambda: len(read(path)) >= count, say=lambda: f"{path} has not {count} records: {read(path)}")
    return read(path)


def wait_for_file(path: Path | str, seconds: float = 120) -> None:
    """Return once a file is there."""
    until(lambda: os.path.exists(path), seconds, f"there is no {path}")


def overlap(spans: list[dict[str, Any]]) -> int:
    """Return how many of the recorded runs went on at the same time, at most."""
    edges = sorted([(one["begun"], 1) for one in spans] + [(one["ended"], -1) for one in spans])
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most
