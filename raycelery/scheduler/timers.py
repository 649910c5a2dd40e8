"""Things to be looked at when their time has come."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

#: Fewer timers than this are not worth a sweep.
_FEW = 256

Entry = tuple[float, int, "Kind", Any, Any]


class Kind:
    """A kind of timers.

    Arguments:
        due: called with subject and token of a timer when its time has come.
        pending: tells of subject and token whether a timer still has a purpose; it always has without.
    """

    __slots__ = ("due", "pending")

    def __init__(self, due: Callable[[Any, Any], None], pending: Callable[[Any, Any], bool] | None = None) -> None:
        self.due = due
        self.pending = pending

    def is_pending(self, subject: Any, token: Any) -> bool:
        """Return whether a timer still has a purpose."""
        return self.pending is None or self.pending(subject, token)


class Timers:
    """A heap of timers, of which those of things long gone are never the most.

    Whoever makes a timer pointless says so by :meth:`cancelled`; once such timers are the majority all of them are
    swept out. So a timer is cancelled at no cost, and 1,000,000 messages that were done long before their time limit
    leave nothing behind.
    """

    __slots__ = ("_cancelled", "_heap", "_ticks")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._ticks = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> float | None:
        """When to look next; it may turn out that there is nothing to be done then."""
        return self._heap[0][0] if self._heap else None

    def add(self, at: float, kind: Kind, subject: Any, token: Any = None) -> None:
        """Have a subject looked at, at a time."""
        heapq.heappush(self._heap, (at, next(self._ticks), kind, subject, token))

    def cancelled(self, count: int = 1) -> None:
        """Note that timers have become pointless."""
        self._cancelled += count
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_pending(*entry[3:])]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def run(self, now: float) -> None:
        """Look at all whose time has come, in order; others may be added meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            _, _, kind, subject, token = heapq.heappop(self._heap)
            if kind.is_pending(subject, token):
                kind.due(subject, token)
            elif self._cancelled:
                self._cancelled -= 1

    def subjects(self, kind: Kind) -> list[Any]:
        """Return the subjects of all timers of a kind that still have a purpose."""
        return [entry[3] for entry in self._heap if entry[2] is kind and kind.is_pending(*entry[3:])]
