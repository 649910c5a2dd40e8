"""What the tasks of every system compute: the same plain functions."""

from __future__ import annotations

from typing import Any


def noop(value: Any = None) -> Any:
    """Do nothing; the value comes back so that a caller can tell whose result it has."""
    return value


def total(values: list[int]) -> int:
    """Add numbers up."""
    return sum(values)


def checksum(frame: Any) -> tuple[int, float]:
    """Read a frame: its rows, and one column's sum."""
    return len(frame), float(frame["c0"].sum())


def frame_of(seed: int, megabytes: float = 20.0) -> Any:
    """Return a frame of five columns of random floats; another one for each seed."""
    import numpy as np
    import pandas as pd

    rows = int(megabytes * 1e6 / 8 / 5)
    return pd.DataFrame(np.random.default_rng(seed).random((rows, 5)), columns=[f"c{i}" for i in range(5)])
