"""Nodes that are kept clear for lanes, so that what becomes free there is not used by others meanwhile."""

from __future__ import annotations

from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.lanes import LaneState
from raycelery.scheduler.nodes import Node, Nodes

#: Executors to end now, and after their message.
Plan = tuple[list[ExecutorState], list[ExecutorState]]


class Claims:
    """What lanes have claimed of nodes.

    Arguments:
        nodes: of the cluster.
        executors: that are asked to end for the sake of a claim.
    """

    def __init__(self, nodes: Nodes, executors: Executors) -> None:
        self._nodes = nodes
        self._executors = executors

    def claim(self, lane: LaneState, node: Node, plan: Plan) -> None:
        """Keep room for one more executor of a lane on a node, once those of the plan have ended."""
        self._nodes.claim(node, lane.key)
        lane.claims[node.id] = lane.claims.get(node.id, 0) + 1
        self.carry_out(lane, plan)

    def carry_out(self, lane: LaneState, plan: Plan | None) -> None:
        """Have the executors of a plan end."""
        if plan is None:
            return
        for executor in plan[0]:
            self._executors.stop(executor)
        for executor in plan[1]:
            self._executors.ask(executor, lane.key)

    def use(self, lane: LaneState, node: Node) -> None:
        """Take note that an executor of a lane starts where the lane may have kept room for it."""
        if node.claim is not None:
            lane.claims[node.id] -= 1
            if not lane.claims[node.id]:
                self.drop(lane, node.id)

    def drop(self, lane: LaneState, node_id: str) -> None:
        """Keep a node clear for the lane no more."""
        del lane.claims[node_id]
        node = self._nodes.get(node_id)
        if node is not None and node.claim == lane.key:
            self._nodes.unclaim(node)
        for executor_id in list(lane.asked):
            executor = self._executors.all[executor_id]
            if executor.node == node_id:
                self._executors.ask_no_more(executor)
