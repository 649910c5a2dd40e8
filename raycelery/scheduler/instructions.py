"""What the scheduler tells the dispatcher to do.

Plain data, made on the way of every message: they are not frozen because that would triple what making one costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raycelery.scheduler.model import Lane, Message


@dataclass(slots=True, eq=False)
class Assign:
    """Hand these messages to this executor, which runs them in order."""

    executor_id: int
    messages: list[Message]


@dataclass(slots=True, eq=False)
class Start:
    """Start an executor of ``lane``, on ``node`` if one is named.

    ``without_cpus``: Ray is not to be asked for its CPUs, which others have on exactly that node: executors that wait
    for their subtasks, or another application's. ``not_on``: nodes that it must not run on, as it is for one to come.
    """

    executor_id: int
    lane: Lane
    node: str | None = None
    without_cpus: bool = False
    not_on: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Stop:
    """Ask an idle executor to end."""

    executor_id: int


@dataclass(slots=True, eq=False)
class Kill:
    """End an executor at once, with what it is running."""

    executor_id: int
    reason: str = ""


@dataclass(slots=True, eq=False)
class Recall:
    """Ask an executor to give back the messages it has not begun."""

    executor_id: int


@dataclass(slots=True, eq=False)
class Drop:
    """Tell callers that a message was given up: no executor could record what became of it."""

    message: Message


@dataclass(slots=True, eq=False)
class Return:
    """Give a message back to the bridge that it came from: it will not be run to its end, see ``settle_reason``."""

    message: Message


# -- to the dispatchers of other applications, its peers ------------------------------------------------------------


@dataclass(slots=True, eq=False)
class CountFree:
    """Ask Ray what the cluster has free; :class:`raycelery.scheduler.events.FreeCounted` says it."""


@dataclass(slots=True, eq=False)
class DemandCpus:
    """Demand CPUs of all peers; :class:`raycelery.scheduler.events.DemandAnswered` tells their answers.

    Arguments:
        units: CPUs of each executor that lacks them.
        share: CPUs that this application has.
        lease_ids: the leases that are part of its share.
        late: the executors that Ray has no room for; for the answer.
        missing: what they lack in all, in Ray's units; for the answer.
    """

    units: list[float]
    share: float
    lease_ids: list[str]
    late: list[int]
    missing: Mapping[str, float]


@dataclass(slots=True, eq=False)
class AskForRoom:
    """Ask all peers to have executors end: this application has ``share`` CPUs and lacks ``amounts``."""

    amounts: Mapping[str, float]
    share: float


@dataclass(slots=True, eq=False)
class OfferLease:
    """Lease a peer CPUs on a node; if it has no use for them, :class:`raycelery.scheduler.events.LeaseRefused`."""

    peer: str
    lease_id: str
    node: str
    cpus: float


@dataclass(slots=True, eq=False)
class ReclaimLease:
    """Ask a peer to return CPUs; if it does not know them, :class:`raycelery.scheduler.events.LeaseReturned`."""

    peer: str
    lease_id: str


@dataclass(slots=True, eq=False)
class ReturnLease:
    """Return CPUs to the peer that leased them."""

    giver: str
    lease_id: str


@dataclass(slots=True, eq=False)
class CheckLeases:
    """Tell a peer how many CPUs this application has (``share``), and ask which of its leases still stand.

    :class:`raycelery.scheduler.events.LeasesChecked` tells the answer.
    """

    giver: str
    share: float
    lease_ids: list[str]


ToPeers = CountFree | DemandCpus | AskForRoom | OfferLease | ReclaimLease | ReturnLease | CheckLeases
Instruction = Assign | Start | Stop | Kill | Recall | Drop | Return | ToPeers
