"""What the dispatcher assigns to an executor at a time: one message of direct mode, or a bridge's batch of them."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

#: What an executor tells the dispatcher; the first item says what of.
Report = tuple[Any, ...]


class Batch:
    """Messages that run one after the other. One of direct mode is alone in its batch.

    The connection's reading thread may take back what the running thread has not begun.

    Arguments:
        seq: the scheduler's number of the batch.
        payloads: what each message is.
        bridged: whether it is a bridge's.
        quick: whether its messages are expected to be short, so that nobody needs to hear that one has begun.
        settle_reason: why the message of direct mode is not to be run; None: it is.
        reason: the same in words.
        deliveries: how often the message of direct mode was given to an executor before.
    """

    def __init__(
        self,
        seq: int,
        payloads: list[Any],
        *,
        bridged: bool = False,
        quick: bool = False,
        settle_reason: str | None = None,
        reason: str = "",
        deliveries: int = 0,
    ) -> None:
        self.seq = seq
        self.bridged = bridged
        self.quick = quick
        self.settle_reason = settle_reason
        self.reason = reason
        self.deliveries = deliveries
        #: Guards the two below.
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Any]] = deque(enumerate(payloads))
        self._current: int | None = None

    @classmethod
    def assigned(cls, message: tuple[Any, ...]) -> Batch:
        """Return the batch that a message of the dispatcher's is or holds."""
        seq, payload, settle_reason, reason, deliveries = message
        if type(payload) is list:
            quick, jobs = payload
            return cls(seq, [job for _, job in jobs], bridged=True, quick=quick)
        return cls(seq, [payload], settle_reason=settle_reason, reason=reason, deliveries=deliveries)

    def begin_next(self) -> tuple[int, Any] | None:
        """Return index and payload of the message that is to run now; None if there is none left."""
        with self._lock:
            if not self._waiting:
                return None
            index, payload = self._waiting.popleft()
            self._current = index
            return index, payload

    def end_current(self) -> bool:
        """Take note that the message that ran has ended; return whether there are more."""
        with self._lock:
            self._current = None
            return bool(self._waiting)

    def end(self, seconds: float) -> list[Report]:
        """Return what is reported of a batch that ran so many seconds; a message that is alone reports for itself."""
        return [("done", self.seq, seconds)] if self.bridged else []

    def take_back(self) -> list[Report]:
        """Give up what has not begun; return the reports that say so, and that the one that runs has begun."""
        with self._lock:
            reports: list[Report] = [("job", self.seq, index, ("unbegun",)) for index, _ in reversed(self._waiting)]
            self._waiting.clear()
            if self._current is not None:
                reports.append(("job", self.seq, self._current, ("began", os.getpid())))
            return reports
