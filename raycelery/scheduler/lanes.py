"""Lanes and executors as the scheduler keeps them."""

from __future__ import annotations

from collections import deque

from raycelery.scheduler.model import Lane, Message, SettleReason
from raycelery.scheduler.nodes import UNIT, Shape, scaled
from raycelery.scheduler.queues import Rotation

_NEVER = float("-inf")
#: The lane of an application's clerk: executors that need no CPU and only do bookkeeping.
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
        #: All executors; those not ready yet; those of them that no node could hold; how many are ready.
        self.executors: dict[int, None] = {}
        self.starting: set[int] = set()
        self.ahead: set[int] = set()
        self.ready = 0
        #: Executors with nothing to do; those at work on nothing but short messages, which come free soon; those of
        #: the latter with only a little left.
        self.idle: dict[int, None] = {}
        self.quick: dict[int, None] = {}
        self.top_up: dict[int, None] = {}
        #: Executors with nothing to do that have given CPUs back which they had on loan.
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


class ExecutorState:
    """An executor: where it is, what it was given."""

    __slots__ = (
        "attempt", "begun", "blocked", "borrowed", "counted", "doomed", "guest", "head_since", "id", "idle_armed",
        "idle_since", "killed", "lane", "leaving", "long", "node", "outstanding", "paused", "ready", "ready_at",
        "recalling", "refill", "resting", "spent", "stopping", "watched", "yielding",
    )  # fmt: skip

    def __init__(self, number: int, lane: LaneState, borrowed: bool, guest: bool) -> None:
        self.id = number
        self.lane = lane
        self.node: str | None = None
        self.borrowed = borrowed
        #: It has no CPUs but those that another application lends.
        self.guest = guest
        #: Number of the lane's try it is part of: those that were started together are one.
        self.attempt = lane.tries
        self.ready = False
        self.ready_at = 0.0
        #: What it was given and has not finished, in order; the first is running.
        self.outstanding: dict[int, Message] = {}
        #: Numbers of those of them that are not known to be short.
        self.long: set[int] = set()
        #: Whether it has said that it began what it was given last while it was idle.
        self.begun = False
        #: Since when the first is running.
        self.head_since = 0.0
        #: It may be given more once no more than this many are left.
        self.refill = 0
        #: It has been given its only message (one_shot).
        self.spent = False
        self.recalling = False
        #: Messages to be terminated if it turns out that it had begun them.
        self.doomed: set[int] = set()
        self.blocked = False
        self.stopping = False
        #: Number of the message for whose sake we killed it (0: no message), the settle_reason for that, and why.
        self.killed: tuple[int, SettleReason, str] | None = None
        #: Key of the lane it is to make room for at a message's end; "" for another application.
        self.yielding: str | None = None
        #: It is about to end, or will after its message.
        self.leaving = False
        #: What it adds to its lane's ``share`` and ``leaving``, and to the executors there may be.
        self.counted = (0, 0, 0)
        #: It has nothing to do, and has given CPUs back that it had on loan.
        self.resting = False
        #: It is given nothing until it is resumed: another application has its CPUs, or it has those of another.
        self.paused = False
        self.idle_since = 0.0
        #: Whether an timer is set for the case that it stays idle, and for the case that its first message runs long.
        self.idle_armed = False
        self.watched = False

    def running(self) -> Message | None:
        """Return the message it is running."""
        return next(iter(self.outstanding.values()), None)

    def alive(self) -> bool:
        """Return whether it has started and is not about to end at once."""
        return self.ready and not self.stopping and self.killed is None

    def lends(self) -> bool:
        """Return whether others of this application may use its CPUs: it waits, and no other application has them."""
        return self.blocked and not self.paused

    def usable(self) -> bool:
        """Return whether it can be given messages, now or later."""
        return self.alive() and not self.paused
