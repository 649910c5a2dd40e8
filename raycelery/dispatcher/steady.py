"""The dispatcher's clock, which is never set: no limit, rate or age is wrong where the machine's time is corrected.

It shows seconds since the epoch, as they were when this process began, and goes on evenly from there. What is due at a
time of day (an ETA), and what people read, is by the machine's time, which :func:`ahead` leads to.
"""

from __future__ import annotations

import time

_START = time.time() - time.monotonic()


def now() -> float:
    """Return the time for all that lasts: limits, rates, ages."""
    return _START + time.monotonic()


def ahead() -> float:
    """Return by how many seconds the machine's time is ahead of this clock now."""
    return time.time() - now()


def wall(at: float) -> float:
    """Return a time of this clock as people read it."""
    return at + ahead()
