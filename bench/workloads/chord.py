"""A large chord and a long chain: the cost of coordination."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import work
from ..calls import Call, WrongResultError, call
from ..record import Outcome
from .noop import noop

if TYPE_CHECKING:
    from ..systems.base import System


def total(records: list[list[Any]]) -> int:
    """Add up what the header's tasks returned; the first of a record is its value."""
    return sum(record[0] for record in records)


def increment(previous: Any) -> int:
    """Add one to a number, or to what the task before returned."""
    number: int = previous[0] if isinstance(previous, list) else previous
    return number + 1


class Workload(work.Workload):
    """First the chord, then the chain; each is one outcome."""

    name = "chord"
    about = "a chord of 1,000 tasks, then a chain of 200: coordination"
    figures = ("own:chord:chord of 1,000:s", "own:chain:chain of 200:s", "makespan", "cpu_per_task")

    def _counts(self) -> tuple[int, int]:
        return (50, 10) if self.settings.quick else (1_000, 200)

    def calls(self, system: str) -> list[Call]:
        count, _ = self._counts()
        # The last two are not submitted; they make their functions known to the workers.
        header = [call(noop, value) for value in range(count)]
        return [*header, call(total, []), call(increment, 0)]

    def drive(self, system: System, calls: list[Call], progress: Callable[[int, int], None]) -> work.Drive:
        *header, body, link = calls
        runs: dict[str, Callable[[], Any]] = {
            "chord": lambda: system.chord(header, body.target),
            "chain": lambda: system.chain(link, self._counts()[1]),
        }
        outcomes, figures = [], {}
        for name, run in runs.items():
            outcome = Outcome(name, time.time(), 0.0)
            outcome.take(run(), time.time())
            figures[name] = time.time() - outcome.submitted
            outcomes.append(outcome)
            progress(len(outcomes), len(runs))
        return work.Drive(outcomes, figures)

    def check(self, calls: list[Call], values: list[Any]) -> None:
        count, length = self._counts()
        if values != [sum(range(count)), length]:
            raise WrongResultError(f"the chord and the chain returned {values}")
