"""What the dispatcher tells the scheduler: what users ask for, what executors report, what becomes of the cluster.

Plain data, made on the way of every message: they are not frozen because that would triple what making one costs. Late
and double reports are harmless, and so is what concerns an executor or a node that is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycelery.scheduler import instructions
from raycelery.scheduler.model import Lane, Message, NodeType

# -- what users ask for -------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class AddLane:
    """A lane is known from now on; again is harmless."""

    lane: Lane


@dataclass(slots=True, eq=False)
class Submit:
    """A message was submitted; its lane must be known.

    Arguments:
        message: a new one.
        executor_id: the executor that does it at once, within what it runs, and needs no telling; where it has ended,
            or is about to, the message waits for another.
    """

    message: Message
    executor_id: int | None = None


@dataclass(slots=True, eq=False)
class Revoke:
    """Messages are revoked by task id, those yet to be submitted included.

    Arguments:
        terminate: also kill the executors that are running them.
    """

    ids: Iterable[str]
    terminate: bool = False


@dataclass(slots=True, eq=False)
class RevokeStamps:
    """Messages are revoked by stamped headers, those yet to be submitted included; see :class:`Revoke`."""

    stamps: Mapping[str, Any]
    terminate: bool = False


@dataclass(slots=True, eq=False)
class Purge:
    """The messages that wait, or wait for their time, are dropped: all queues' or one's; not those of bridges."""

    queue: str | None = None


@dataclass(slots=True, eq=False)
class Withdraw:
    """A bridge wants a message back that waits."""

    message: Message


@dataclass(slots=True, eq=False)
class Terminate:
    """A bridge wants the run of a message ended by force.

    Arguments:
        reason: what is said of it.
    """

    message: Message
    reason: str


@dataclass(slots=True, eq=False)
class SetLimit:
    """The most messages that run at once under a name: "app", "queue:<name>", "task:<name>"; None: no limit."""

    name: str
    maximum: int | None


@dataclass(slots=True, eq=False)
class WallClock:
    """The time of day, by which ETAs are, is ``ahead`` seconds ahead of the clock of :meth:`Scheduler.handle`."""

    ahead: float


@dataclass(slots=True, eq=False)
class SetRate:
    """The cluster-wide rate limit of a task, in runs per second; None lifts it."""

    task: str
    per_second: float | None


@dataclass(slots=True, eq=False)
class Retire:
    """Executors are to end after what they run; others start where there is work."""

    executor_ids: Iterable[int]


@dataclass(slots=True, eq=False)
class RetireOthers:
    """The executors of all definitions of the application but one are to end after what they run."""

    app: str


# -- what executors report ----------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class ExecutorConnected:
    """Ray has started an executor's process, which has to load the application yet."""

    executor_id: int


@dataclass(slots=True, eq=False)
class ExecutorReady:
    """An executor has loaded the application, and where."""

    executor_id: int
    node: str


@dataclass(slots=True, eq=False)
class ExecutorFailed:
    """An executor ended before it was ready.

    Arguments:
        crashed: its process was killed or crashed; else it could not be started as it was asked for.
    """

    executor_id: int
    reason: str
    crashed: bool = False


@dataclass(slots=True, eq=False)
class ExecutorStopped:
    """An executor has ended in order; what it had not begun goes elsewhere."""

    executor_id: int


#: In place of a message's number: nobody can tell which message was begun last, so that any may have been.
UNKNOWN = -1


@dataclass(slots=True, eq=False)
class ExecutorLost:
    """An executor died: what it had begun is settled by Celery, the other messages go elsewhere.

    ``last_begun`` is the number of the message that it began last (0: none); None where its reports tell.
    """

    executor_id: int
    reason: str
    last_begun: int | None = None


@dataclass(slots=True, eq=False)
class Begun:
    """An executor that was idle has begun what it was given."""

    executor_id: int


@dataclass(slots=True, eq=False)
class Finished:
    """An executor is done with a message.

    Arguments:
        runtime: seconds it ran; None where its task was not called.
    """

    executor_id: int
    seq: int
    runtime: float | None


@dataclass(slots=True, eq=False)
class Requeued:
    """An executor gave a message back to be delivered again."""

    executor_id: int
    seq: int


@dataclass(slots=True, eq=False)
class Recalled:
    """An executor answers to a recall: it gave these messages back without having begun them."""

    executor_id: int
    seqs: Sequence[int]


@dataclass(slots=True, eq=False)
class Blocked:
    """The message that an executor runs waits for its subtasks: others may use its CPUs meanwhile.

    Arguments:
        awaited: task ids; they go first, or ever more parents would be begun, each holding a process.
    """

    executor_id: int
    awaited: Iterable[str] = ()


@dataclass(slots=True, eq=False)
class Unblocked:
    """It goes on; the CPUs are its own again, though others may still use them."""

    executor_id: int


# -- what becomes of the cluster ----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class NodeChanged:
    """A live node and its total resources, in Ray's units; the autoscaler's name for its type, where it has one."""

    node: str
    resources: Mapping[str, float]
    node_type: str = ""


@dataclass(slots=True, eq=False)
class NodeDraining:
    """A node will be taken away, at ``deadline`` in seconds since the epoch; None: when it is empty."""

    node: str
    deadline: float | None


@dataclass(slots=True, eq=False)
class NodeRemoved:
    """A node is gone; its executors are reported lost one by one."""

    node: str


@dataclass(slots=True, eq=False)
class AutoscalerFound:
    """There is an autoscaler, or its configuration has changed.

    Arguments:
        node_types: that it may add; None: that is not known.
        maximum: most nodes that it may add in all; None: no limit but those of the types.
    """

    node_types: Sequence[NodeType] | None
    maximum: int | None = None


# -- what peers say: other applications of the cluster, see raycelery.scheduler.leases ----------------------------


@dataclass(slots=True, eq=False)
class MakeRoom:
    """A peer wants executors to end: idle ones, and busy ones while this application has more CPUs.

    Arguments:
        amounts: what the other lacks, in Ray's units.
        share: the CPUs it has.
    """

    amounts: Mapping[str, float]
    share: float


@dataclass(slots=True, eq=False)
class RayDemand:
    """Ray work that is no application's waits for what executors hold.

    Arguments:
        amounts: what it lacks, in Ray's units.
        share: the CPUs that such work has.
        most: no other application uses more CPUs than this one: busy executors are asked of it.
        seconds: until it is looked at again, at most; what becomes free is left to such work for so long.
    """

    amounts: Mapping[str, float]
    share: float
    most: bool = True
    seconds: float = 2.0


@dataclass(slots=True, eq=False)
class FreeCounted:
    """What Ray has free in the cluster, in its units: the answer to :class:`instructions.CountFree`."""

    amounts: Mapping[str, float]


@dataclass(slots=True, eq=False)
class DemandAnswered:
    """All peers have answered to a demand.

    Arguments:
        demand: the instruction.
        most: the most CPUs of one node that any of them could ever lease.
    """

    demand: instructions.DemandCpus
    most: float


@dataclass(slots=True, eq=False)
class PeerDemand:
    """A peer demands CPUs.

    Arguments:
        peer: the application.
        units: the CPUs that it wants, for each executor.
        share: CPUs that it has.
        lease_ids: the leases that are part of its share, of this application and of others.
    """

    peer: str
    units: Sequence[float]
    share: float
    lease_ids: list[str]


@dataclass(slots=True, eq=False)
class LeasesConfirmed:
    """A peer says that it still has leases of this application; arguments as of :class:`PeerDemand`."""

    peer: str
    share: float
    lease_ids: list[str]


@dataclass(slots=True, eq=False)
class LeaseRefused:
    """A peer has no use any more for what it was offered, or has gone."""

    lease_id: str


@dataclass(slots=True, eq=False)
class LeaseReturned:
    """A peer returned CPUs, or has gone."""

    lease_id: str


@dataclass(slots=True, eq=False)
class LeaseGranted:
    """A peer leases this application CPUs on a node; they are taken if there is still use for them."""

    lease_id: str
    giver: str
    node: str
    cpus: float


@dataclass(slots=True, eq=False)
class LeaseReclaimed:
    """A peer wants CPUs back."""

    lease_id: str


@dataclass(slots=True, eq=False)
class LeasesChecked:
    """Which of some leases of a peer still ``standing``; if it has gone, none."""

    lease_ids: list[str]
    standing: list[str]


Event = (
    AddLane | Submit | Revoke | RevokeStamps | Purge | Withdraw | Terminate | SetLimit | SetRate | WallClock
    | Retire | RetireOthers | ExecutorReady | ExecutorFailed | ExecutorStopped | ExecutorLost | Begun | Finished
    | Requeued | Recalled | Blocked | Unblocked | NodeChanged | NodeRemoved | MakeRoom | FreeCounted
    | DemandAnswered | PeerDemand | LeasesConfirmed | LeaseRefused | LeaseReturned | LeaseGranted | LeaseReclaimed
    | LeasesChecked | ExecutorConnected | AutoscalerFound | NodeDraining | RayDemand
)  # fmt: skip
