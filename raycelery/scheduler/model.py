"""What the scheduler is about: messages, lanes, policy.

Plain data only: no Ray, no clock, no I/O.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from raycelery.scheduler import phases
from raycelery.scheduler.phases import MessagePhase

#: Why a message is handed to an executor for Celery's bookkeeping instead of being run.
#:
#: ``revoked``        revoked before it began
#: ``terminated``     revoked with ``terminate=True`` while it ran
#: ``timeout``        its hard time limit passed
#: ``lost``           the executor running it died (Celery's ``WorkerLostError``)
#: ``preempted``      its node was taken away, as had been announced, before it had ended
#: ``infeasible``     no node is large enough for what it asks for
#: ``undeliverable``  it can never run: too many deliveries, no executor starts
#: ``chord``          not a task's message: all parts of a chord are there, its body is to be called
SettleReason = Literal["revoked", "terminated", "timeout", "lost", "preempted", "infeasible", "undeliverable", "chord"]


def in_words(request: Mapping[str, float]) -> str:
    """Say what a request in Ray's units asks for: ``{"CPU": 2, "memory": 3e10}`` is "2 CPU, 30 GB of memory"."""
    parts = []
    for name, amount in request.items():
        # Never in the form 3e+10.
        text = f"{amount / 1e9 if name == 'memory' else amount:,.3f}".rstrip("0").rstrip(".")
        parts.append(f"{text} {'GB of memory' if name == 'memory' else name}")
    return ", ".join(parts) or "no CPU"


class Counted(Enum):
    """What a message counts against."""

    #: No limit: it does not run.
    NOWHERE = "nowhere"
    #: The limits of application, queue and task.
    EVERYWHERE = "everywhere"
    #: Its task's only: it waits for its subtasks, which may need its places in application and queue.
    TASK = "task"


@dataclass(slots=True, eq=False)
class Message:
    """One Celery message on its way to an executor.

    ``id`` is Celery's task id and is not unique: a retry carries the id of the run it
    follows. ``seq`` is the scheduler's own number, unique, ascending in order of submission.
    ``priority`` is a sort key: lower runs first. Times are seconds since the epoch.
    """

    id: str
    task: str
    queue: str
    lane: str
    payload: Any = None
    priority: int = 0
    eta: float | None = None
    time_limit: float | None = None
    stamps: Mapping[str, Any] | None = None
    seq: int = 0
    deliveries: int = 0
    settle_reason: SettleReason | None = None
    reason: str = ""
    submitted: float = 0.0
    assigned: float = 0.0
    #: How often a task gave it back by ``Reject(requeue=True)``.
    rejections: int = 0
    #: Where it is; the executor that has it, or had it last.
    phase: MessagePhase = MessagePhase.NEW
    executor_id: int = 0
    #: What it counts against now.
    counted: Counted = Counted.NOWHERE
    #: How often executors died of its bookkeeping.
    settles: int = 0
    #: Whether it came over a bridge, where Celery's worker does the bookkeeping.
    bridged: bool = False

    def move(self, phase: MessagePhase) -> None:
        """Put it into another phase."""
        if phases.enforced:
            phases.check_message(self.id, self.phase, phase)
        self.phase = phase

    @property
    def settling(self) -> bool:
        """Whether an executor has it for bookkeeping."""
        return self.phase is MessagePhase.SETTLING

    @property
    def at_executor(self) -> bool:
        """Whether an executor has it."""
        return self.phase is MessagePhase.ASSIGNED or self.phase is MessagePhase.SETTLING


@dataclass(frozen=True, slots=True)
class Lane:
    """The executors that share a resource request, a runtime environment and an application.

    Queues feed lanes: executors of one lane serve every queue whose messages ask for the same
    thing, so a queue that falls idle costs nothing to its neighbours.

    ``request`` is in Ray's units (``CPU``, ``GPU``, ``memory`` in bytes, custom names).
    ``one_shot`` executors run a single message and end (``executor="function"``).
    ``driver`` executors leave what they ask for to the Ray work that their tasks start (``executor="driver"``).
    """

    key: str
    request: Mapping[str, float]
    app: str = ""
    env: str = ""
    one_shot: bool = False
    driver: bool = False


def lane_of(
    request: Mapping[str, float], app: str, env: str = "", one_shot: bool = False, driver: bool = False
) -> Lane:
    """Return the lane for a request; the same for whoever asks for the same."""
    text = json.dumps([sorted(request.items()), env, "driver" if driver else one_shot, app])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Lane(key=key, request=request, app=app, env=env, one_shot=one_shot, driver=driver)


@dataclass(frozen=True, slots=True)
class NodeType:
    """A kind of nodes that Ray's autoscaler may add.

    Arguments:
        name: what the cluster's configuration calls it.
        resources: of a node, in Ray's units.
        maximum: most nodes of it; None: no limit.
    """

    name: str
    resources: Mapping[str, float]
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be tuned about the scheduler's decisions; times in seconds."""

    #: Most messages handed to one executor at once, and how long such a batch should take.
    max_batch: int = 64
    batch_seconds: float = 0.02
    #: A task is known to be short once this many runs were seen and their mean is below ``batch_seconds``.
    batch_samples: int = 16
    #: Messages behind one that has run this long are called back and given to another executor.
    recall_after: float = 0.2
    #: An executor with nothing to do ends after this long even when nobody needs its CPUs.
    idle_seconds: float = 60.0
    #: A lane holds its executors at least this long before a starved lane may take them (a start costs ~0.5 s).
    slice_seconds: float = 2.0
    #: It goes on for this long in all where that is known to be enough for the rest of its messages: turns cost starts.
    finish_seconds: float = 6.0
    #: Most executors of the application, idle ones included; not those that wait for subtasks or only settle messages.
    max_executors: int = 1000
    #: Whether an executor is requested for what no node could hold where no autoscaler is known: there may be one.
    demand_ahead: int = 1
    #: Most nodes that Ray's autoscaler is asked for before they have come; 0: it is asked for none.
    max_nodes_ahead: int = 100
    #: How long a message may wait for a node that could hold its request before it is infeasible.
    infeasible_seconds: float = 10.0
    #: A message whose executors keep dying is undeliverable after this many deliveries.
    max_deliveries: int = 3


@dataclass(slots=True)
class Stats:
    """What an observer may ask for at any time; counts, not copies."""

    waiting: dict[str, int] = field(default_factory=dict)
    scheduled: int = 0
    running: int = 0
    executors: dict[str, int] = field(default_factory=dict)
