"""Reports of made-up measurements, for tests of what is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from bench.measure import Trial
from bench.report import document

MACHINE = {
    "host": "<made&up>",
    "system": "Linux",
    "processor": "abacus",
    "cpus": 2,
    "memory": 8 * 10**9,
    "python": "3.11.0",
    "versions": {"ray": "2.60.0"},
    "commit": "abc",
    "time": "2030-01-01 00:00:00 +0000",
    "load": [0.1, 0.1, 0.1],
}


def turn(
    system: str,
    number: int = 0,
    *,
    seconds: float = 0.5,
    slots: int = 2,
    tasks: int = 20,
    groups: Sequence[str] = ("",),
    digest: str = "same",
) -> dict[str, Any]:
    """A turn of tasks of equal length, submitted at once, on slots that take them in order."""
    starts = [task // slots * seconds for task in range(tasks)]
    span = starts[-1] + seconds
    times = [span * sample / 20 for sample in range(21)]
    return {
        "system": system,
        "round": number,
        "cpus": 2,
        "began": 1000.0,
        "ended": 1000.0 + span,
        "start_seconds": 2.0,
        "fleet": {"slots": slots, "num_cpus": 1.0, "cpus": 2, "nodes": 1},
        "digest": hashlib.sha256(digest.encode()).hexdigest(),
        "own": {},
        "socket_bytes": 1000 * tasks,
        "calls": {
            "group": [groups[task % len(groups)] for task in range(tasks)],
            "submitted": [0.0] * tasks,
            "calling": [0.0001] * tasks,
            "started": starts,
            "ended": [start + seconds for start in starts],
            "taken": [start + seconds for start in starts],
            "cpu": [seconds] * tasks,
            "slot": [f"host:{100 + task % slots}" for task in range(tasks)],
            "error": [None] * tasks,
        },
        "usage": {
            "time": times,
            "cpu": [moment * slots for moment in times],
            "memory": [100_000_000] * len(times),
            "processes": [slots + 1] * len(times),
            "machine": [moment * slots * 1.1 for moment in times],
        },
    }


def report(turns: Sequence[dict[str, Any]], workload: str = "zones", problem: str | None = None) -> dict[str, Any]:
    """A report of one workload."""
    systems = list(dict.fromkeys(one["system"] for one in turns))
    trial = Trial(workload, systems, list(turns), problem)
    settings = {"concurrency": 2, "quick": False, "module": None, "repeat": 1}
    return document.document([trial], MACHINE, "raycelery bench --out '<here>'", settings)
