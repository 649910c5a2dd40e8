"""What a Ray that a program starts for itself does without.

``ray.init`` starts what a cluster of several machines needs, too. A program's own Ray has no use for the monitor of the
autoscaler, nor for the one that sends workers' log files to drivers: what tasks say comes from the dispatcher. Each is
a Python process, which takes 0.4 s of CPU to start and 60 MB to keep.

The agent of each node listens at one port, the same for all Rays. Where a second Ray runs on a machine, its agent tries
for 3.4 s to get that port, and ``ray.init`` waits for it. So it listens at any port that is free, as ``ray start
--dashboard-agent-listen-port=0`` has it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def slim(dashboard: bool) -> Iterator[None]:
    """Have ``ray.init`` leave out what nobody uses, in here.

    ``ray.init`` takes no arguments for that; its own parameters do (``ray._private.parameter.RayParams``). Where a
    version of Ray does not know one of them, it is left as it is.

    Arguments:
        dashboard: whether Ray's dashboard is wanted, which shows what the monitors find.
    """
    from ray._private import parameter

    original: Any = parameter.RayParams
    chosen: dict[str, Any] = {"dashboard_agent_listen_port": 0}
    if not dashboard:
        chosen.update(no_monitor=True, include_log_monitor=False)
    known = inspect.signature(original).parameters
    chosen = {name: value for name, value in chosen.items() if name in known}

    class Parameters(original):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, **chosen})

    parameter.RayParams = Parameters
    try:
        yield
    finally:
        parameter.RayParams = original
