"""Batches: messages that are handed to an executor together, and which messages may be."""

from __future__ import annotations

import time
from collections import deque

from raycelery.bridge.apply_result import ApplyResult
from raycelery.scheduler.runtimes import Runtimes

#: Most messages in a batch, and the seconds that a batch should take.
MAX_MESSAGES = 64
MAX_SECONDS = 0.02
#: A task's mean run time is relied on once so many runs were seen.
MIN_RUNS = 16


class Batch:
    """Messages of one task that an executor runs one after the other; a batch takes one slot of the pool.

    Arguments:
        batch_id: unique within this bridge.
        results: of its messages, in order.
        quick: whether they are expected to be short; the executor then does not report that one has begun.
    """

    def __init__(self, batch_id: int, results: list[ApplyResult], quick: bool) -> None:
        self.batch_id = batch_id
        self.results = results
        self.quick = quick
        #: How many have not ended and were not given back.
        self.left = len(results)
        #: When one of them ended last, by `time.monotonic`, and whether the others have been recalled since.
        self.progressed = time.monotonic()
        self.recalled = False
        for index, result in enumerate(results):
            result.batch_id, result.index = batch_id, index

    def holds(self, result: ApplyResult) -> bool:
        """Return whether a message is in this batch still: it was not given back."""
        return result.batch_id == self.batch_id

    def first_left(self) -> ApplyResult | None:
        """Return the first message that has not ended, which is the one that runs; None if all have ended."""
        return next((result for result in self.results if not result.ended and self.holds(result)), None)


class Batching:
    """Decides which messages share a batch: those of tasks that are known to be short."""

    def __init__(self) -> None:
        self._runtimes = Runtimes()

    def note(self, task: str, seconds: float) -> None:
        """Take a run into account that took so many seconds."""
        self._runtimes.note(task, seconds)

    def short_mean(self, result: ApplyResult) -> float | None:
        """Return the mean seconds of runs of a message's task if it is known to be short, else None."""
        if result.hard_limit or not self._runtimes.short(result.task, MIN_RUNS, MAX_SECONDS):
            return None
        return self._runtimes.mean(result.task)

    def take(self, waiting: deque[ApplyResult], most: int) -> tuple[list[ApplyResult], bool]:
        """Remove what may be the next batch from the left end of ``waiting``, which is not empty.

        Arguments:
            most: messages in the batch, at most.

        Returns:
            the messages, and whether they are expected to be short.
        """
        first = waiting.popleft()
        results = [first]
        mean = self.short_mean(first)
        if mean is None:
            return results, False
        room = min(most, MAX_MESSAGES, max(1, int(MAX_SECONDS / max(mean, 1e-6))))
        while waiting and len(results) < room and _alike(first, waiting[0]):
            results.append(waiting.popleft())
        return results, True


def _alike(one: ApplyResult, other: ApplyResult) -> bool:
    return bool((one.task, one.queue) == (other.task, other.queue) and not other.hard_limit)
