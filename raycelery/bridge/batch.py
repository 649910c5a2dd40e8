"""Messages that are handed to an executor together, and which may be."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from raycelery.bridge.apply_result import Job

#: Most messages in a bundle, and the seconds that it should take.
MOST = 64
SECONDS = 0.02
#: A task is known to be short after so many runs.
SAMPLES = 16


class Bundle:
    """Jobs that an executor runs one after the other; it takes one slot of the pool.

    Arguments:
        number: of the bundle.
        jobs: what is in it.
        quick: whether they are expected to be short.
    """

    def __init__(self, number: int, jobs: list[Job], quick: bool) -> None:
        self.number = number
        self.jobs = jobs
        self.quick = quick
        self.left = len(jobs)
        #: When the latest of them ended, and whether the others were called back since.
        self.moved = time.monotonic()
        self.recalled = False
        for index, job in enumerate(jobs):
            job.bundle, job.index = self, index

    def running(self) -> Job | None:
        """Return the job that is running, if any is."""
        return next((job for job in self.jobs if not job.ended and job.bundle is self), None)


class Runtimes:
    """Knows which tasks are short."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def note(self, task: str, seconds: float) -> None:
        """Note a run."""
        count, mean = self._seen.get(task, (0, 0.0))
        self._seen[task] = (count + 1, mean + (seconds - mean) / min(count + 1, 20))

    def mean(self, job: Job) -> float | None:
        """Return the seconds that runs of a job's task take, if they are known to be short; None if not."""
        seen = self._seen.get(job.task)
        if seen is None or seen[0] < SAMPLES or seen[1] >= SECONDS or job.hard_limit:
            return None
        return seen[1]

    def take(self, waiting: deque[Job], most: int) -> tuple[list[Job], bool]:
        """Remove from ``waiting`` what may be handed over together; and whether that is expected to be short."""
        first = waiting.popleft()
        jobs = [first]
        mean = self.mean(first)
        if mean is None:
            return jobs, False
        room = min(most, MOST, max(1, int(SECONDS / max(mean, 1e-6))))
        while waiting and len(jobs) < room and _alike(first, waiting[0]):
            jobs.append(waiting.popleft())
        return jobs, True


def _alike(one: Job, other: Job) -> bool:
    same: Any = (one.task, one.queue) == (other.task, other.queue)
    return bool(same and not other.hard_limit)
