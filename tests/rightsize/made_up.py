"""Samples as they might have been measured."""

from __future__ import annotations

import random
from typing import Any

from raycelery.executor.profiling.sample import Sample


def sample(wait: float = 0.0, cpu: float = 1.0, **fields: Any) -> Sample:
    given: dict[str, Any] = {
        "task": "tasks.train",
        "state": "SUCCESS",
        "wall": wait + cpu + fields.get("delayed", 0.0),
        "cpu": cpu,
        "delayed": 0.0,
        "peak": 200_000_000,
        "before": 150_000_000,
        "num_cpus": 1.0,
        "memory": 0,
        "process": "host:1",
        "first": False,
        "started": 0.0,
        **fields,
    }
    return Sample(**given)


def many(wait: tuple[float, float], cpu: tuple[float, float], count: int = 50, **fields: Any) -> list[Sample]:
    numbers = random.Random(7)
    return [
        sample(numbers.uniform(*wait), numbers.uniform(*cpu), started=float(number), **fields)
        for number in range(count)
    ]
