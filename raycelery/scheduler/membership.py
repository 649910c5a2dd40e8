"""Nodes that come, change and go."""

from __future__ import annotations

from raycelery.scheduler import events
from raycelery.scheduler.claims import Claims
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.growth import Growth
from raycelery.scheduler.lanes import Lanes
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.turn import Turn


class Membership:
    """Which nodes are part of the cluster.

    Arguments:
        turn: told of lanes for which there may be room now.
        lanes: that want executors.
        nodes: of the cluster.
        occupancy: of nodes by executors.
        executors: that may run on a node before it is known, or not start on one any more.
        claims: of lanes on nodes.
        growth: told of nodes that have come.
    """

    def __init__(
        self, turn: Turn, lanes: Lanes, nodes: Nodes, occupancy: Occupancy, executors: Executors, claims: Claims,
        growth: Growth,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._lanes = lanes
        self._nodes = nodes
        self._occupancy = occupancy
        self._executors = executors
        self._claims = claims
        self._growth = growth

    def changed(self, event: events.NodeChanged) -> None:
        """See :class:`raycelery.scheduler.events.NodeChanged`."""
        known = self._nodes.get(event.node) is not None
        changed = self._nodes.change(event.node, event.resources, event.node_type)
        if changed is None:
            return
        for state in [state for state in self._executors.all.values() if state.node == event.node]:
            self._occupancy.move(state, event.node)
        self._displaced(changed)
        if not known:
            self._growth.arrived(changed)
        for lane in self._lanes.active.values():
            if lane.infeasible_since is not None and self._nodes.could_fit(lane.shape):
                lane.infeasible_since = None
                self._turn.changed[lane.key] = None

    def removed(self, event: events.NodeRemoved) -> None:
        """See :class:`raycelery.scheduler.events.NodeRemoved`."""
        removed = self._nodes.remove(event.node)
        if removed is None:
            return
        self._turn.growing = True
        if removed.claim is not None:
            self._claims.drop(self._lanes.active[removed.claim], event.node)
        self._displaced(removed)

    def _displaced(self, node: Node) -> None:
        """Take note of executors that cannot start on a node any more: Ray looks for another, and there may be none."""
        gone = self._nodes.get(node.id) is not node
        for state in [self._executors.all[executor_id] for executor_id in node.executors]:
            if not state.ready and (gone or not node.could_fit(state.lane.request)):
                self._executors.set_ahead(state, True)
                self._turn.changed[state.lane.key] = None
