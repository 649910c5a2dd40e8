"""Things to be looked at when their time has come."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

#: Fewer timers than this are not worth a sweep.
_FEW = 256

Entry = tuple[float, int, str, Any, Any]


class Timers:
    """A heap of timers, of which those of things long gone are never the most.

    Whoever makes an timer pointless says so by :meth:`cancelled`; once such timers are the majority all of them are
    swept out. So an timer is cancelled at no cost, and 1,000,000 messages that were done long before their time limit
    leave nothing behind.

    Arguments:
        pending: tells of kind, subject and token whether the timer still has a purpose.
    """

    __slots__ = ("_cancelled", "_heap", "_pending", "_ticks")

    def __init__(self, pending: Callable[[str, Any, Any], bool]) -> None:
        self._pending = pending
        self._heap: list[Entry] = []
        self._ticks = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float | None:
        """When to look next; it may turn out that there is nothing to be done then."""
        return self._heap[0][0] if self._heap else None

    def add(self, at: float, kind: str, subject: Any, token: Any = None) -> None:
        """Have it looked at ``subject`` at a time."""
        heapq.heappush(self._heap, (at, next(self._ticks), kind, subject, token))

    def cancelled(self, count: int = 1) -> None:
        """Note that timers have become pointless."""
        self._cancelled += count
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if self._pending(*entry[2:])]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def due(self, now: float) -> Iterator[tuple[str, Any, Any]]:
        """Remove and yield kind, subject and token of what is due, in order; the receiver may add others meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            _, _, kind, subject, token = heapq.heappop(self._heap)
            if self._pending(kind, subject, token):
                yield kind, subject, token
            elif self._cancelled:
                self._cancelled -= 1

    def subjects(self, kind: str) -> list[Any]:
        """Return the subjects of all timers of a kind that still have a purpose."""
        return [entry[3] for entry in self._heap if entry[2] == kind and self._pending(*entry[2:])]
