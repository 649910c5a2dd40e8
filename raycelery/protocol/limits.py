"""The bounds that an application sets for its dispatcher."""

from __future__ import annotations

from raycelery.protocol.codec import Plain


class Limits(Plain, frozen=True):
    """The bounds of one dispatcher; the ``ray_*`` settings of the same names."""

    max_pending: int
    max_result_bytes: float
    max_deliveries: int
    max_executors: int
    idle_seconds: float
    infeasible_seconds: float
    max_pending_bytes: float = 1e18
    max_nodes_ahead: int = 100
    journal: str | None = None
    journal_key: str | None = None
    durability: str = "process"
    debug: bool = False
    dispatcher_idle_seconds: float | None = None
