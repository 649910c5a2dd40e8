"""Lanes as the scheduler keeps them."""

from __future__ import annotations

from collections import deque

from raycelery.scheduler.model import Lane, Message
from raycelery.scheduler.nodes import UNIT, Shape, scaled
from raycelery.scheduler.queues import Rotation

_NEVER = float("-inf")
#: Beginning of the keys of lanes whose executors need no CPU and only do an application's bookkeeping.
SETTLEMENT = "settlement:"


class LaneState:
    """A lane: its queues, its executors."""

    __slots__ = (
        "ahead",
        "asked",
        "claims",
        "executors",
        "failures",
        "for_settlement",
        "hungry_since",
        "idle",
        "infeasible_since",
        "key",
        "lane",
        "leaving",
        "looked",
        "missed",
        "not_before",
        "quick",
        "ready",
        "request",
        "resting",
        "rotation",
        "shape",
        "share",
        "sought",
        "starting",
        "to_settle",
        "top_up",
        "tries",
        "waiting",
        "weight",
    )  # fmt: skip

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.key = lane.key
        self.for_settlement = lane.key.startswith(SETTLEMENT)
        self.request = scaled(lane.request)
        self.shape: Shape = tuple(sorted(self.request.items()))
        #: What one executor counts when lanes are compared: its CPUs, or one where it needs none.
        self.weight = self.request.get("CPU") or UNIT
        self.rotation = Rotation(lane.key)
        #: Messages that can run but for executors and limits.
        self.waiting = 0
        #: Messages that need Celery's bookkeeping, not a run.
        self.to_settle: deque[Message] = deque()
        #: All executors; those not ready yet; those of them for which a node must come first; how many are ready.
        self.executors: dict[int, None] = {}
        self.starting: set[int] = set()
        self.ahead: set[int] = set()
        self.ready = 0
        #: Executors with nothing to do; those at work on nothing but short messages, which come free soon; those of
        #: the latter with only a little left.
        self.idle: dict[int, None] = {}
        self.quick: dict[int, None] = {}
        self.top_up: dict[int, None] = {}
        #: Executors with nothing to do that have given the CPUs back on which they were backfilled.
        self.resting: dict[int, None] = {}
        #: Weight of its executors that neither wait for subtasks nor rest, and of those of them that are to end.
        self.share = 0
        self.leaving = 0
        #: Tries in a row in which executors ended before they were ready; all tries that did; when to try again.
        self.failures = 0
        self.tries = 0
        self.not_before = _NEVER
        self.infeasible_since: float | None = None
        #: Since when it wants executors that cannot be started, as a tick.
        self.hungry_since: int | None = None
        #: It could have run something and had no executor for it.
        self.missed = False
        #: Gains of nodes up to which nothing was found for it.
        self.looked = -1
        #: When busy executors of others were last looked at for it.
        self.sought = _NEVER
        #: Nodes that are kept clear for it, and for how many executors; the executors asked to end for it.
        self.claims: dict[str, int] = {}
        self.asked: dict[int, None] = {}

    @property
    def coming(self) -> int:
        """How many executors are being started on nodes that there are."""
        return len(self.starting) - len(self.ahead)


class Lanes:
    """All lanes that were ever named, and those of them that have messages or executors."""

    def __init__(self) -> None:
        self.known: dict[str, Lane] = {}
        self.active: dict[str, LaneState] = {}

    def add(self, lane: Lane) -> Lane:
        """Make a lane known, again is harmless; return the one of that key that is."""
        return self.known.setdefault(lane.key, lane)

    def get(self, key: str) -> LaneState:
        """Return the state of a lane, which must be known."""
        found = self.active.get(key)
        if found is None:
            found = self.active[key] = LaneState(self.known[key])
        return found

    def forget(self, lane: LaneState) -> None:
        """Forget the state of a lane without messages and executors, so that lanes that come and go cost nothing."""
        del self.active[lane.key]
