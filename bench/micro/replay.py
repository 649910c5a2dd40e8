"""Shows measurements in pytest-benchmark's tables.

Its fixture measures all rounds of one function in sequence. Here the rounds of several systems alternate, so they are
measured first, and then replayed with a clock that advances by the measured seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_now = 0.0


def clock() -> float:
    """Return the time of the replay, in seconds."""
    return _now


def replay(benchmark: Any, seconds: Sequence[float]) -> None:
    """Run one round of ``benchmark``, whose timer must be :func:`clock`, for each measurement."""
    left = iter(seconds)

    def measured() -> None:
        global _now
        _now += next(left)

    benchmark.pedantic(measured, rounds=len(seconds))
