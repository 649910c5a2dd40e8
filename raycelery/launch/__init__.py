"""Launches an application: a program with its own environment, as a Ray job, by one call on a laptop and in production.

``submit`` starts one, ``attach`` finds one that another process has started. ``raycelery submit`` and ``raycelery job``
are the same for the command line. Follows https://docs.ray.io/en/latest/cluster/running-applications/job-submission/.
"""

from __future__ import annotations

from raycelery.launch.errors import LaunchError, NotFound, SpecError
from raycelery.launch.launching import attach, runs, submit
from raycelery.launch.run import Run, RunState, RunStatus
from raycelery.launch.spec import Spec, load

__all__ = [
    "LaunchError",
    "NotFound",
    "Run",
    "RunState",
    "RunStatus",
    "Spec",
    "SpecError",
    "attach",
    "load",
    "runs",
    "submit",
]
