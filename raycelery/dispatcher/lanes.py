"""Lanes and executors as the brain keeps them."""

from __future__ import annotations

from collections import deque

from raycelery.dispatcher.model import Lane, Message
from raycelery.dispatcher.nodes import scaled
from raycelery.dispatcher.queues import Rotation


class LaneState:
    """A lane: its queues, its executors."""

    __slots__ = (
        "busy_cpus",
        "claim",
        "executors",
        "failures",
        "hungry_since",
        "idle",
        "infeasible_since",
        "lane",
        "ready",
        "request",
        "retry_at",
        "rotation",
        "short_busy",
        "starting",
        "top_up",
        "verdicts",
        "waiting",
    )  # fmt: skip

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.request = scaled(lane.request)
        self.rotation = Rotation()
        #: Messages that can run but for executors and limits.
        self.waiting = 0
        #: Messages that need Celery's bookkeeping, not a run.
        self.verdicts: deque[Message] = deque()
        self.executors: set[int] = set()
        self.starting: set[int] = set()
        self.ready = 0
        #: Executors with nothing to do, and those with only a little left of known short work.
        self.idle: dict[int, None] = {}
        self.top_up: dict[int, None] = {}
        #: Executors at work on nothing but short messages: they come free soon.
        self.short_busy: dict[int, None] = {}
        self.hungry_since: int | None = None
        #: CPUs of its executors that do not wait for subtasks: its share.
        self.busy_cpus = 0
        self.failures = 0
        self.infeasible_since: float | None = None
        #: When busy executors of others may be asked to make room for it again.
        self.retry_at = 0.0
        #: Id of the node that is kept clear for it.
        self.claim: str | None = None


class ExecutorState:
    """An executor: where it is, what it was given."""

    __slots__ = (
        "begun", "blocked", "borrowed", "id", "idle_since", "killed", "lane", "long", "node", "outstanding", "progress",
        "ready", "ready_at", "recall_armed", "recalling", "stopping", "yielding",
    )  # fmt: skip

    def __init__(self, number: int, lane: LaneState, node: str | None, borrowed: bool) -> None:
        self.id = number
        self.lane = lane
        self.node = node
        self.borrowed = borrowed
        self.ready = False
        self.ready_at = 0.0
        #: What it was given and has not finished, in order; the first is running.
        self.outstanding: dict[int, Message] = {}
        #: How many of these are not known to be short.
        self.long = 0
        self.progress = 0
        self.recall_armed = False
        self.recalling = False
        #: Whether it has said that it began what it was given last while it was idle.
        self.begun = False
        self.blocked = False
        self.stopping = False
        #: The verdict for its running message once it is dead, where we killed it.
        self.killed: str | None = None
        #: Asked to make room for a starved lane at the next message's end.
        self.yielding = False
        self.idle_since = 0.0

    def running(self) -> Message | None:
        """Return the message it is running."""
        return next(iter(self.outstanding.values()), None)
