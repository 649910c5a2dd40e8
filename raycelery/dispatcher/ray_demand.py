"""Sees what other Ray work of the cluster waits for: tasks, actors and placement groups that are not executors.

Such work is started inside tasks (Ray Data, Train, plain Ray tasks), or by other programs. What executors hold, Ray
gives to nobody else: whoever waits for it would wait for ever while there is a backlog.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import ray

from raycelery.dispatcher import steady
from raycelery.dispatcher.peers import Peers
from raycelery.reasons import reason_of
from raycelery.scheduler.events import RayDemand as Demand
from raycelery.scheduler.nodes import UNIT, scaled

if TYPE_CHECKING:
    from raycelery.scheduler.scheduler import Scheduler

logger = logging.getLogger(__name__)

#: It takes no more than this part of the time to ask; but on a machine that is merely busy it is not waited for longer
#: than so many seconds.
_PAUSES, _MOST_SECONDS = 20, 5.0
#: Seconds between calls of :meth:`RayDemand.look`, and for what is in the way of one.
_BETWEEN_SECONDS = 2.0
#: Seconds in which other dispatchers answer; else it is looked at again later.
_ANSWER_SECONDS = 5.0
Shape = tuple[tuple[str, int], ...]


class Books(NamedTuple):
    """What an application has of Ray.

    Arguments:
        name: its own.
        pending: the requests of its executors that have not started, and how many there are of each.
        held: CPUs that Ray has given to its executors.
        in_use: CPUs of executors that have not been asked to end, nor wait for subtasks.
    """

    name: str
    pending: list[tuple[Shape, int]]
    held: float
    in_use: float


class RayDemand:
    """Tells a scheduler of Ray work that waits.

    Arguments:
        name: of the application.
        scheduler: that is told.
        on_change: called when there may be something for the scheduler to decide.
    """

    def __init__(self, name: str, scheduler: Scheduler, on_change: Callable[[], None]) -> None:
        self._name = name
        self._scheduler = scheduler
        self._on_change = on_change
        self._peers = Peers(name)
        self._looking: asyncio.Task[None] | None = None
        #: Not again before then: on a large cluster the answer is long.
        self._next = float("-inf")
        #: What was seen the last time: what Ray is about to start is in its books for a moment.
        self._seen: Counter[Shape] = Counter()
        self._warned = False

    def look(self) -> None:
        """Look, if this application holds anything that others could wait for; to be called regularly."""
        if self._looking is not None or time.monotonic() < self._next:
            return
        if any(executor.ready for executor in self._scheduler.view.executors.values()):
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        began = time.monotonic()
        try:
            pending, free = await asyncio.get_running_loop().run_in_executor(None, self._ask, self.books())
            # These are no strangers: they lease CPUs, and what they have pending cannot be told from other work.
            answers = self._peers.ask_all("books") if pending else []
            others: list[Books] = await asyncio.wait_for(asyncio.gather(*answers), _ANSWER_SECONDS)
        except Exception as exc:  # it is Ray's own, and asked again
            logger.warning("cannot find out what waits in Ray: %s", reason_of(exc))
            return
        finally:
            self._looking = None
            took = time.monotonic() - began
            pause = min(_PAUSES * took, _MOST_SECONDS)
            self._next = time.monotonic() + pause
        mine = self.books()
        foreign = Counter(pending)
        for books in (mine, *others):
            foreign -= Counter(dict(books.pending))
        waiting, self._seen = foreign & self._seen, foreign
        nodes = self._scheduler.view.nodes
        requests = [dict(shape) for shape in waiting.elements() if nodes.could_fit(shape)]
        if requests:
            share = nodes.total_cpus / UNIT - free - sum(books.held for books in (mine, *others))
            amounts: Counter[str] = Counter()
            for request in requests:
                amounts.update(request)
            wanted = {name: amount / UNIT for name, amount in amounts.items()}
            most = max((mine, *others), key=lambda books: (books.in_use, books.name))
            again = pause + 2 * took + _BETWEEN_SECONDS
            self._scheduler.handle(Demand(wanted, max(0.0, share), most is mine, again), steady.now())
            self._on_change()
        said = self._scheduler.view.ray_work(steady.now())
        if said and not self._warned:
            logger.warning("%s", said)
        self._warned = bool(said)

    def _ask(self, mine: Books) -> tuple[Counter[Shape], float]:
        """Return what is pending in Ray, nothing where all of it is this application's, and the CPUs that are free."""
        pending = _pending()
        if not pending - Counter(dict(mine.pending)):
            return Counter(), 0.0
        return pending, ray.available_resources().get("CPU", 0.0)

    def books(self) -> Books:
        """Return what this application has of Ray."""
        view = self._scheduler.view
        executors = view.executors.values()
        pending = Counter(executor.lane.shape for executor in executors if not executor.ready)
        held = sum(e.cpus for e in executors if e.ready and not (e.backfilled or e.leased))
        return Books(self._name, list(pending.items()), held / UNIT, view.in_use / UNIT)


def _pending() -> Counter[Shape]:
    from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply

    client = ray._private.worker.global_worker.gcs_client
    if not hasattr(client, "get_cluster_resource_state"):
        return Counter()
    reply = GetClusterResourceStateReply()
    reply.ParseFromString(client.get_cluster_resource_state())
    state = reply.cluster_resource_state
    found: Counter[Shape] = Counter()
    for one in state.pending_resource_requests:
        found[_shape(one.request.resources_bundle)] += one.count
    for gang in state.pending_gang_resource_requests:
        for shape in _bundles(gang):
            found[shape] += 1
    found.pop((), None)
    return found


def _bundles(gang: Any) -> Iterable[Shape]:
    """Return what a placement group asks for, which is in another place since Ray 2.4x."""
    selectors = getattr(gang, "bundle_selectors", ())
    requests = selectors[0].resource_requests if selectors else gang.requests
    return [_shape(request.resources_bundle) for request in requests]


def _shape(bundle: Mapping[str, float]) -> Shape:
    """Return a request without Ray's own names for places in placement groups, and for nodes."""
    amounts = {name: amount for name, amount in bundle.items() if "_group_" not in name and ":" not in name}
    return tuple(sorted(scaled(amounts).items()))
