"""What keeps messages from being run for a while: concurrency limits and rate limits, where things are parked."""

from __future__ import annotations

from collections import deque
from typing import Protocol

#: How many more may run where there is no maximum.
ENDLESS = 1 << 30

#: What bounds a stream: the limits of the application, of its queue, of its task.
Bounds = tuple["Limit", "Limit", "Limit"]


class Parkable(Protocol):
    """What cannot be served before a gate opens: a stream, a queue or a lane's whole rotation.

    Each limit parks what it bounds as a whole ("app": rotations, "queue:x": queues, "task:x" and rates: streams). So
    what is parked costs nothing, and when there is room again, the order within it is what it would have been.
    """

    parked: Gate | None

    @property
    def lane(self) -> str:
        """Key of its lane."""

    def unpark(self) -> None:
        """Be served again."""

    def rank(self) -> tuple[int, int]:
        """Return priority and sequence number of what would be served first."""


class Gate:
    """Where things are parked.

    Arguments:
        name: "app", "queue:<name>", "task:<name>"; for a rate the task's.
    """

    __slots__ = ("name", "parked")

    def __init__(self, name: str) -> None:
        self.name = name
        self.parked: deque[Parkable] = deque()

    def room_at(self, now: float) -> int:
        """Return how many more may run."""
        raise NotImplementedError

    def park(self, parkable: Parkable) -> None:
        """Keep it from being served."""
        parkable.parked = self
        self.parked.append(parkable)

    def first(self) -> Parkable:
        """Remove and return what is to be served next: what has been parked the longest."""
        return self.parked.popleft()


class Limit(Gate):
    """Most messages that may run at once under one name: "app", "queue:<name>" or "task:<name>"."""

    __slots__ = ("maximum", "used")

    def __init__(self, name: str, maximum: int | None = None) -> None:
        super().__init__(name)
        self.maximum = maximum
        self.used = 0

    @property
    def room(self) -> int:
        """How many more may run."""
        return ENDLESS if self.maximum is None else self.maximum - self.used

    def room_at(self, now: float) -> int:
        return self.room

    def first(self) -> Parkable:
        """Remove and return what is to be served next: of one queue's parts in several lanes, the most urgent."""
        if len(self.parked) > 1 and self.name.startswith("queue:"):
            best = min(self.parked, key=lambda parkable: parkable.rank())
            self.parked.remove(best)
            return best
        return self.parked.popleft()


class Rate(Gate):
    """A token bucket that holds one token, as Celery's: runs of a task are ``1 / per_second`` apart."""

    __slots__ = ("last", "per_second", "timer")

    def __init__(self, task: str, per_second: float) -> None:
        super().__init__(task)
        self.per_second = per_second
        self.last = float("-inf")
        #: When it is looked at again, if something is parked.
        self.timer: float | None = None

    @property
    def next(self) -> float:
        """When the next run may begin."""
        return self.last + 1.0 / self.per_second

    def room_at(self, now: float) -> int:
        return int(self.next <= now)
