"""What the dispatcher looks at regularly: the cluster's nodes, what has expired."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import ray

from raycelery.dispatcher import steady
from raycelery.dispatcher.recovery import rewrite
from raycelery.dispatcher.rewriting import Rewriting
from raycelery.scheduler import events

if TYPE_CHECKING:
    from raycelery.dispatcher.autoscaler import Autoscaler
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.idle_end import IdleEnd
    from raycelery.dispatcher.journal import Journal
    from raycelery.dispatcher.metrics import Metrics
    from raycelery.dispatcher.monitoring.tools import Tools
    from raycelery.dispatcher.ray_demand import RayDemand
    from raycelery.dispatcher.turns import Turns

logger = logging.getLogger(__name__)

#: Seconds between looks while there is something to be done, and while there is not; and before the first one after
#: such a time, so that what has come is given out first.
SECONDS = 1.0
RESTING_SECONDS = 10.0
SOON_SECONDS = 0.05
#: Ray's label for the name of a node's type; old versions have none.
NODE_TYPE = "ray.io/node-group"
#: Seconds between looks at connections, at least.
CONNECTIONS_SECONDS = 5.0
#: By so many seconds the machine's time may be corrected without a word.
SET_SECONDS = 0.2


class ClusterMonitor:
    """Tells a dispatcher's scheduler of nodes that come, change and go, and keeps its books small.

    Arguments:
        core: whose scheduler is told, and whose books are kept small.
        journal: rewritten when it has grown.
        metrics: sampled.
        tools: those that look are told regularly.
        autoscaler: looked for.
        ray_demand: looked at.
        turns: taken after each look.
        connections: ended where their hosts are out of reach.
        idle_end: looked at.
    """

    def __init__(
        self,
        core: Core,
        journal: Journal,
        metrics: Metrics,
        tools: Tools,
        autoscaler: Autoscaler,
        ray_demand: RayDemand,
        turns: Turns,
        connections: Collection[Connection],
        idle_end: IdleEnd,
    ) -> None:
        self._core = core
        self._journal = journal
        self._metrics = metrics
        self._tools = tools
        self._autoscaler = autoscaler
        self._ray_demand = ray_demand
        self._turns = turns
        self._connections = connections
        self._idle_end = idle_end
        self._looked_at_connections = 0.0
        self._ahead = 0.0
        self._nodes: dict[str, Mapping[str, float]] = {}
        self._draining: set[str] = set()
        self._resting = False
        self._looked = float("-inf")
        self._rewriting = Rewriting(journal, core.scheduler.view, core.store)

    def start(self) -> None:
        """Begin to look, and have the first turn taken: a journal may have had something to be done."""
        self._look()

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        looks = (
            self._look_at_nodes, self._autoscaler.look, self._ray_demand.look, self._look_at_books,
            self._look_at_tools, self._look_at_connections, self._look_at_clock, self._idle_end.look,
        )  # fmt: skip
        for look in looks:
            try:
                look()
            except Exception:  # whatever it is (a full disk, say), the others are looked at, and it again
                logger.exception("%s failed", look.__name__.strip("_"))
        self._resting, self._looked = not self._busy(), time.monotonic()
        due = self._core.store.due
        expiry = min(self._idle_end.due(), RESTING_SECONDS if due is None else due - steady.now())
        self._look_in(max(SECONDS, min(RESTING_SECONDS, expiry)) if self._resting else SECONDS)
        self._turns.soon()

    def _busy(self) -> bool:
        """Return whether anything runs or waits for an executor, or somebody listens."""
        view, plane = self._core.scheduler.view, self._tools.plane
        return view.pending > view.scheduled or (plane is not None and plane.ticking)

    def settle(self) -> None:
        """Look soon if there is something to be done again; to be called after each turn of the scheduler."""
        if self._resting and self._busy():
            self._resting = False
            self._timer.cancel()
            # Calls that are made one after the other are no reason to look between all of them.
            self._look_in(max(SOON_SECONDS, self._looked + SECONDS - time.monotonic()))

    def _look_at_books(self) -> None:
        self._core.store.expire(steady.now())
        if self._rewriting.due():
            try:
                rewrite(self._core, self._journal)
            except OSError:
                self._rewriting.failed()
                raise
            self._rewriting.done()

    def _look_at_clock(self) -> None:
        ahead = steady.ahead()
        if abs(ahead - self._ahead) > SET_SECONDS:
            logger.warning("this machine's time was set by %+.1f s: ETAs are by the new one", ahead - self._ahead)
            self._ahead = ahead
            self._core.scheduler.handle(events.WallClock(ahead), steady.now())

    def _look_at_connections(self) -> None:
        if time.monotonic() - self._looked_at_connections >= CONNECTIONS_SECONDS:
            self._looked_at_connections = time.monotonic()
            for connection in list(self._connections):
                connection.end_if_cut_off()

    def _look_at_tools(self) -> None:
        self._metrics.sample(self._core.scheduler.view)
        if self._tools.plane is not None:
            self._tools.plane.tick(steady.now())

    def _look_at_nodes(self) -> None:
        now = steady.now()
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        alive: dict[str, Mapping[str, float]] = {
            node_id: {
                name: amount
                for name, amount in node["Resources"].items()
                if not name.startswith("node:") and name != "object_store_memory"
            }
            for node_id, node in nodes.items()
        }
        for node_id, resources in alive.items():
            if self._nodes.get(node_id) != resources:
                node_type = nodes[node_id].get("Labels", {}).get(NODE_TYPE, "")
                self._core.scheduler.handle(events.NodeChanged(node_id, resources, node_type), now)
        self._look_at_draining(alive, now)
        for node_id in self._nodes.keys() - alive.keys():
            self._core.scheduler.handle(events.NodeRemoved(node_id), now)
        self._nodes = alive

    def _look_at_draining(self, alive: Mapping[str, Mapping[str, float]], now: float) -> None:
        for node_id, milliseconds in _draining_nodes().items():
            if node_id in alive and node_id not in self._draining:
                deadline = milliseconds / 1000 - steady.ahead() if milliseconds else None
                when = "once it is empty" if deadline is None else f"in {deadline - now:.0f} s"
                logger.warning("node %s will be taken away %s: nothing new is run there", node_id, when)
                self._core.scheduler.handle(events.NodeDraining(node_id, deadline), now)
                self._draining.add(node_id)
        self._draining &= alive.keys()


def _draining_nodes() -> Mapping[str, int]:
    """Return the nodes that will be taken away, and when: in ms since the epoch, 0 if there is no deadline."""
    state = ray._private.state.state
    # Ray Train and Data ask the same; it is Ray's own, and may go.
    return state.get_draining_nodes() if hasattr(state, "get_draining_nodes") else {}
