"""Shows pytest-benchmark measurements that were taken elsewhere.

Its fixture times one function, round after round; here the rounds of several systems take turns, so they are measured
first and played back against a clock that stands still but for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_now = 0.0


def clock() -> float:
    """Return the time of the playback, in seconds."""
    return _now


def replay(benchmark: Any, seconds: Sequence[float]) -> None:
    """Give ``benchmark``, whose timer must be :func:`clock`, one round for each measurement."""
    left = iter(seconds)

    def measured() -> None:
        global _now
        _now += next(left)

    benchmark.pedantic(measured, rounds=len(seconds))
