"""How long tasks run, as far as was seen."""

from __future__ import annotations

#: Runs of which the mean is, roughly: of more, the older ones count less and less.
_MEMORY = 20


class Runtimes:
    """Estimates how long runs of each task take."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        #: Runs seen, and their mean seconds, by task.
        self._seen: dict[str, tuple[int, float]] = {}

    def note(self, task: str, seconds: float) -> None:
        """Take note of one run."""
        count, mean = self._seen.get(task, (0, 0.0))
        self._seen[task] = (count + 1, mean + (seconds - mean) / min(count + 1, _MEMORY))

    def mean(self, task: str) -> float | None:
        """Return the mean seconds of a task's latest runs; None where none was seen."""
        seen = self._seen.get(task)
        return None if seen is None else seen[1]

    def short(self, task: str, samples: int, seconds: float) -> bool:
        """Return whether so many runs of a task were seen, and their mean is below so many seconds."""
        seen = self._seen.get(task)
        return seen is not None and seen[0] >= samples and seen[1] < seconds
