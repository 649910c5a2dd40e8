"""One large data frame passed to many tasks: the cost of arguments."""

from __future__ import annotations

from typing import Any

from .. import work
from ..calls import Call, call

_COLUMNS = 5


def checksum(frame: Any, number: int) -> list[float]:
    """Return the frame's number of rows and the sum of a column. The number makes the calls different."""
    return [number, len(frame), float(frame["c0"].sum())]


def frame_of(megabytes: int) -> Any:
    """Return a frame of random floats, the same one each time for a size."""
    import numpy as np
    import pandas as pd

    rows = int(megabytes * 1e6 / 8 / _COLUMNS)
    numbers = np.random.default_rng(megabytes).random((rows, _COLUMNS))
    return pd.DataFrame(numbers, columns=[f"c{column}" for column in range(_COLUMNS)])


def prepare() -> None:
    """Import what is needed to read a frame."""
    import pandas  # noqa: F401


class Workload(work.Workload):
    """Queues get fewer tasks, as they hold a copy of the frame for each task. Figures are per task."""

    name = "frame"
    about = "one 200 MB DataFrame to 100 tasks that read it (4 on a queue, which holds a copy for each)"
    figures = ("seconds_per_task", "calling", "socket_bytes", "memory")
    serializer = "pickle"
    #: Megabytes, tasks on Ray, and tasks on queues.
    size: tuple[int, int, int] = (200, 100, 4)
    quick_size: tuple[int, int, int] = (2, 8, 4)

    def calls(self, system: str) -> list[Call]:
        megabytes, many, few = self.quick_size if self.settings.quick else self.size
        frame = frame_of(megabytes)
        return [call(checksum, frame, number) for number in range(few if system in work.QUEUES else many)]

    def warm(self) -> str:
        return f"{__name__}:prepare"

    def check(self, calls: list[Call], values: list[Any]) -> None:
        frame = calls[0].args[0]
        rows, total = len(frame), float(frame["c0"].sum())
        work.expect(calls, values, lambda one: [one.args[1], rows, total])

    def digest(self, values: list[Any]) -> str:
        # The number of tasks differs between systems, the results do not.
        return super().digest(values[:1])
