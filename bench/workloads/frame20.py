"""A smaller frame, which a queue can hold a hundred times."""

from __future__ import annotations

from . import frame


class Workload(frame.Workload):
    """Like `frame`, with the same number of tasks on every system."""

    name = "frame20"
    about = "one 20 MB DataFrame to 100 tasks that read it"
    size = (20, 100, 100)
