"""A frame of a size that a queue can still carry a hundred times."""

from __future__ import annotations

from . import frame


class Workload(frame.Workload):
    """As `frame`, smaller, and with as many tasks on every system."""

    name = "frame20"
    about = "one 20 MB DataFrame to 100 tasks that read it"
    size = (20, 100, 100)
