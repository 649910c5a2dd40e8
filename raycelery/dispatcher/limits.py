"""Concurrency limits and rate limits, and the streams that are parked until they have room."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raycelery.dispatcher.queues import Stream


class Limit:
    """Most messages that may run at once under one name: "app", "queue:<name>" or "task:<name>"."""

    __slots__ = ("maximum", "name", "parked", "used")

    def __init__(self, name: str, maximum: int | None = None) -> None:
        self.name = name
        self.maximum = maximum
        self.used = 0
        self.parked: deque[Stream] = deque()

    @property
    def room(self) -> int:
        """How many more may run."""
        return 1 << 30 if self.maximum is None else self.maximum - self.used


class Rate:
    """A token bucket that holds one token, as Celery's: runs of a task are ``1 / per_second`` apart."""

    __slots__ = ("next", "per_second")

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.next = 0.0

    def take(self, now: float) -> None:
        """Spend the token."""
        self.next = max(self.next, now) + 1.0 / self.per_second
