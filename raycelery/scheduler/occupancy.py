"""What executors take from their nodes, and what they count in their lanes' shares.

An executor whose message waits for its subtasks *vacates* its CPUs: others of the application may use them, and one
that is started on them is *backfilled*. Ray knows nothing of that: it is not asked for the CPUs of those.
"""

from __future__ import annotations

from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.phases import ExecutorPhase


class Occupancy:
    """Keeps nodes and lanes in agreement with their executors.

    Arguments:
        nodes: of the cluster.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        #: Executors that count against ``max_executors``.
        self.slots = 0

    # -- shares -------------------------------------------------------------------------------------------------

    def count(self, executor: ExecutorState) -> None:
        """Count an executor in its lane's share as it counts now: not at all where it uses no CPU."""
        lane = executor.lane
        here = executor.phase is not ExecutorPhase.ENDED and not (executor.blocked or executor.ahead)
        share = lane.weight if here and not (executor.resting or executor.paused) else 0
        leaving = share if executor.leaving else 0
        slots = int(here and not lane.for_settlement)
        lane.share += share - executor.counted[0]
        lane.leaving += leaving - executor.counted[1]
        self.slots += slots - executor.counted[2]
        executor.counted = (share, leaving, slots)

    # -- where it is --------------------------------------------------------------------------------------------

    def node_of(self, executor: ExecutorState) -> Node | None:
        """Return the node whose resources an executor holds."""
        node = self._nodes.get(executor.node)
        return node if node is not None and executor.id in node.executors else None

    def place(self, executor: ExecutorState, node: Node) -> None:
        """Take the executor's resources from a node."""
        executor.node = node.id
        node.executors[executor.id] = None
        self._nodes.add(node, executor.lane.request, -1)
        cpus = executor.cpus
        node.backfilled += cpus * (executor.backfilled and not executor.resting)
        node.vacated += cpus * executor.vacates()
        if executor.vacates() or executor.resting:
            self._nodes.add(node, {"CPU": cpus})

    def unplace(self, executor: ExecutorState) -> None:
        """Give them back."""
        node = self.node_of(executor)
        if node is not None:
            cpus = executor.cpus
            del node.executors[executor.id]
            node.backfilled -= cpus * (executor.backfilled and not executor.resting)
            node.vacated -= cpus * executor.vacates()
            if executor.vacates() or executor.resting:
                self._nodes.add(node, {"CPU": cpus}, -1)
            self._nodes.add(node, executor.lane.request)
        executor.node = None

    def move(self, executor: ExecutorState, node_id: str) -> None:
        """Note where an executor really is."""
        if executor.node != node_id or self.node_of(executor) is None:
            self.unplace(executor)
            node = self._nodes.get(node_id)
            if node is not None:
                self.place(executor, node)
            executor.node = node_id

    # -- who has its CPUs ---------------------------------------------------------------------------------------

    def set_waiting(self, executor: ExecutorState, *, blocked: bool | None = None, paused: bool | None = None) -> None:
        """Note whether an executor waits for subtasks, and whether it is paused; its CPUs are vacated accordingly."""
        before = executor.vacates()
        executor.blocked = executor.blocked if blocked is None else blocked
        executor.paused = executor.paused if paused is None else paused
        self.count(executor)
        node, change = self.node_of(executor), executor.vacates() - before
        if node is not None and change:
            node.vacated += change * executor.cpus
            self._nodes.add(node, {"CPU": executor.cpus}, change)

    def set_resting(self, executor: ExecutorState, resting: bool) -> None:
        """Note whether a backfilled executor has given its CPUs back, since it has nothing to do."""
        executor.resting = resting
        self.count(executor)
        node = self.node_of(executor)
        if node is not None:
            cpus = executor.cpus
            node.backfilled += -cpus if resting else cpus
            self._nodes.add(node, {"CPU": cpus}, 1 if resting else -1)

    def overdraws(self, executor: ExecutorState) -> bool:
        """Return whether those whose CPUs an executor uses want them back."""
        node = self.node_of(executor) if executor.backfilled else None
        return node is not None and node.overdrawn()
