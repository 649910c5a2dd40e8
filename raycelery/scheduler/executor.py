"""An executor as the scheduler keeps it."""

from __future__ import annotations

from raycelery.scheduler import phases
from raycelery.scheduler.lanes import LaneState
from raycelery.scheduler.model import Message, SettleReason
from raycelery.scheduler.phases import ExecutorPhase

_ALIVE = (ExecutorPhase.IDLE, ExecutorPhase.BUSY, ExecutorPhase.SPENT)


class ExecutorState:
    """An executor: where it is, what it was given.

    Arguments:
        executor_id: unique, never used again.
        lane: that it serves.
        backfilled: it is started on CPUs of executors that wait for their subtasks.
        leased: it has no CPUs but those that another application leases.
    """

    __slots__ = (
        "ahead", "asked_at", "asked_before", "attempt", "backfilled", "begun", "blocked", "counted", "doomed",
        "head_since", "id", "idle_armed", "idle_since", "killed", "lane", "late_at", "leased", "leaving", "long",
        "node", "outstanding", "paused", "phase", "ready", "ready_at", "recalling", "refill", "resting", "started_at",
        "watched", "yielding",
    )  # fmt: skip

    def __init__(
        self, executor_id: int, lane: LaneState, *, backfilled: bool = False, leased: bool = False, now: float = 0.0
    ) -> None:
        self.id = executor_id
        self.lane = lane
        self.phase = ExecutorPhase.STARTING
        self.node: str | None = None
        self.backfilled = backfilled
        self.leased = leased
        #: Number of the lane's try it is part of: those that were started together are one.
        self.attempt = lane.tries
        #: When it was asked of Ray; and when others are to be asked to make room for it, if it has not come by then.
        self.started_at = now
        self.late_at = now
        #: It is asked for so that the autoscaler adds a node for it, and has no CPU before there is one; since when;
        #: and how many nodes had come by the time that Ray was asked.
        self.ahead = False
        self.asked_at = now
        self.asked_before = 0
        #: Whether, and when, it has loaded the application; or since when it has its CPUs again.
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
        self.recalling = False
        #: Messages to be terminated if it turns out that it had begun them.
        self.doomed: set[int] = set()
        #: Number of the message for whose sake we killed it (0: no message), the settle_reason for that, and why.
        self.killed: tuple[int, SettleReason, str] | None = None
        #: Key of the lane it is to make room for at a message's end; "" for another application.
        self.yielding: str | None = None
        #: It is about to end, or will after its message.
        self.leaving = False
        #: Its message waits for its subtasks, which may use its CPUs.
        self.blocked = False
        #: It is given nothing until it is resumed: another application has its CPUs, or it has those of another.
        self.paused = False
        #: It has nothing to do, and has given the CPUs back on which it was backfilled.
        self.resting = False
        #: What it adds to its lane's ``share`` and ``leaving``, and to the executors there may be.
        self.counted = (0, 0, 0)
        self.idle_since = 0.0
        #: Whether a timer is set for the case that it stays idle, and for the case that its first message runs long.
        self.idle_armed = False
        self.watched = False

    def move(self, phase: ExecutorPhase) -> None:
        """Put it into another phase."""
        if phases.enforced:
            phases.check_executor(self.id, self.phase, phase)
        self.phase = phase

    @property
    def cpus(self) -> int:
        """CPUs that it was asked for, in the units of nodes."""
        return self.lane.request.get("CPU", 0)

    def running(self) -> Message | None:
        """Return the message it is running."""
        return next(iter(self.outstanding.values()), None)

    def alive(self) -> bool:
        """Return whether it has started and is not about to end at once."""
        return self.phase in _ALIVE

    def usable(self) -> bool:
        """Return whether it can be given messages, now or later."""
        return self.phase in _ALIVE and not self.paused

    def free(self) -> bool:
        """Return whether it has nothing to do and can be given something at once, or once it has its CPUs again."""
        return self.phase is ExecutorPhase.IDLE and not self.paused

    def vacates(self) -> bool:
        """Return whether others of this application may use its CPUs: it waits, and no other application has them."""
        return self.blocked and not self.paused

    def condition(self) -> str:
        """Return what people are told of it: "starting", "waiting" (for subtasks), "busy", "paused" or "idle"."""
        if not self.ready:
            return "starting"
        if self.blocked:
            return "waiting"
        return "busy" if self.outstanding else "paused" if self.paused else "idle"
