"""The files that executors write: where they are, what is in them, and how they are read.

``raycelery-<application>-<pid>.log`` in Ray's folder for logs on the executor's node. Each line is

    2026-11-27 07:21:07,123 INFO shop.train[0b9e3b6c-...] text

with ``-`` for the level of what was printed, and ``executor[pid]`` for what was said outside of tasks.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: From this size on a file is renamed to ``...log.1``, in the place of the one before.
MOST_BYTES = 100_000_000
_LINE = re.compile(r"(?P<time>\S+ \S+) (?P<level>\S+) (?P<task>\S+)\[(?P<id>[^]]*)\] (?P<text>.*)")


class Entry(NamedTuple):
    """One line of a file; ``id`` is the task's."""

    time: str
    level: str
    task: str
    id: str
    text: str


class Found(NamedTuple):
    """What was found on a node: lines, and the size of each file that was read."""

    entries: list[Entry]
    sizes: dict[str, int]


def folder() -> Path:
    """Return Ray's folder for logs on this node."""
    import ray

    return Path(ray._private.worker._global_node.get_logs_dir_path())


def opened(path: Path) -> BinaryIO:
    """Open an executor's file to append to it; a link in its place, which somebody else may have put there, goes."""
    if path.is_symlink():
        path.unlink()
    return open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "ab")


def name(application: str, pid: int | str) -> str:
    """Return the name of an executor's file, or a pattern of names."""
    return f"raycelery-{re.sub(r'[^A-Za-z0-9._-]', '_', application)}-{pid}.log"


def stamp(created: float) -> str:
    """Return a time, in seconds since the epoch, as files have it, by the node's clock and zone."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
    return f"{whole},{int(created % 1 * 1000):03d}"


def label(level: int) -> str:
    """Return the word for a level."""
    return logging.getLevelName(level).replace(" ", "") if level else "-"


def written(created: float, level: int, task: str, task_id: str, text: str) -> bytes:
    """Return what a file holds of something that was printed or logged: each line of it names the task."""
    lead = f"{stamp(created)} {label(level)} {task.replace(' ', '_')}[{task_id}] "
    return "".join(f"{lead}{one}\n" for one in text.split("\n")).encode(errors="backslashreplace")


def read(application: str | None, task_id: str | None, most: int | None, where: Path | None = None) -> Found:
    """Read this node's files.

    Arguments:
        application: whose; None: of all.
        task_id: of the task whose lines are wanted; None: of all.
        most: how many lines at most, the last ones; None: all.
    """
    entries: list[Entry] = []
    sizes: dict[str, int] = {}
    found = where or folder()
    pattern = name(application, "*") if application else "raycelery-*.log"
    wanted = None if task_id is None else f"[{task_id}] ".encode()
    for path in sorted(found.glob(f"{pattern}.1")) + sorted(found.glob(pattern)):
        if application and not re.fullmatch(rf"{re.escape(name(application, '')[:-4])}\d+\.log(\.1)?", path.name):
            continue  # an application whose name begins with the other's
        sizes[path.name] = 0
        last: deque[Entry] = deque(maxlen=most)
        for raw in _lines(path):
            sizes[path.name] += len(raw)
            if wanted is not None and wanted not in raw:
                continue
            match = _LINE.match(raw.decode(errors="replace"))
            if match is not None and (task_id is None or match["id"] == task_id):
                last.append(Entry(*match.groups()))
        entries += last
    # One clock for all files of a node.
    entries.sort(key=lambda entry: entry.time)
    return Found(entries if most is None else entries[len(entries) - min(most, len(entries)) :], sizes)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for raw in file:
                if raw.endswith(b"\n"):
                    yield raw
    except FileNotFoundError:  # it was renamed meanwhile
        return
