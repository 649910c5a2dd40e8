"""The plain functions that the tasks of every system run."""

from __future__ import annotations

from typing import Any


def noop(value: Any = None) -> Any:
    """Return the value, by which a caller can check that it has the right result."""
    return value


def total(values: list[int]) -> int:
    """Return the sum of some numbers."""
    return sum(values)


def checksum(frame: Any) -> tuple[int, float]:
    """Return a frame's number of rows and the sum of a column."""
    return len(frame), float(frame["c0"].sum())


def frame_of(seed: int, megabytes: float = 20.0) -> Any:
    """Return a frame of random floats in five columns, a different one for each seed."""
    import numpy as np
    import pandas as pd

    rows = int(megabytes * 1e6 / 8 / 5)
    return pd.DataFrame(np.random.default_rng(seed).random((rows, 5)), columns=[f"c{i}" for i in range(5)])
