"""Nodes that will be taken away: the autoscaler or the cloud has said so, and by when.

Nothing new goes there, what had not begun goes elsewhere at once, and what runs may end. What still runs shortly before
the deadline is ended and settled: it may run again elsewhere, and does not count as delivered.
"""

from __future__ import annotations

from raycelery.scheduler import events
from raycelery.scheduler.claims import Claims
from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.lanes import Lanes
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.phases import ExecutorPhase
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn

#: What runs is ended so many seconds before its node goes, so that it is still known why.
_EARLY_SECONDS = 3.0


class Draining:
    """Empties nodes that will be taken away.

    Arguments:
        turn: the time.
        timers: for their deadlines.
        lanes: that may have claimed them.
        nodes: of the cluster.
        executors: that run there.
        claims: of lanes on nodes.
    """

    def __init__(
        self, turn: Turn, timers: Timers, lanes: Lanes, nodes: Nodes, executors: Executors, claims: Claims
    ) -> None:
        self._turn = turn
        self._timers = timers
        self._lanes = lanes
        self._nodes = nodes
        self._executors = executors
        self._claims = claims
        self._deadline = Kind(self._on_deadline, self._is_due)

    def announced(self, event: events.NodeDraining) -> None:
        """See :class:`raycelery.scheduler.events.NodeDraining`."""
        node = self._nodes.get(event.node)
        if node is None or node.draining:
            return
        if node.claim is not None:
            self._claims.drop(self._lanes.active[node.claim], node.id)
        self._nodes.drain(node)
        self._turn.note("draining", node.id, event.deadline)
        for executor_id in list(node.executors):
            self._empty(self._executors.all[executor_id])
        if event.deadline is not None:
            self._timers.add(max(self._turn.now, event.deadline - _EARLY_SECONDS), self._deadline, node.id, node)
        self._turn.growing = True

    def _empty(self, executor: ExecutorState) -> None:
        """Have an executor end: now, or after what it runs."""
        if executor.phase is ExecutorPhase.STARTING:
            self._executors.kill(executor, 0, "terminated", "its node is taken away")
        elif executor.id in self._executors.idle or executor.resting or (executor.paused and not executor.outstanding):
            self._executors.stop(executor)
        elif executor.alive():
            if len(executor.outstanding) > 1:
                self._executors.recall(executor)
            self._executors.ask_no_more(executor)
            self._executors.ask(executor, "")

    def concerns(self, executor_id: int) -> bool:
        """Return whether an executor is on a node that will be taken away."""
        executor = self._executors.all.get(executor_id)
        node = None if executor is None else self._nodes.get(executor.node)
        return node is not None and node.draining

    def settle(self, executor: ExecutorState) -> None:
        """Have an executor end again that has come up where it must not stay."""
        if self.concerns(executor.id):
            self._empty(executor)

    def _is_due(self, node_id: str, node: Node) -> bool:
        return self._nodes.get(node_id) is node

    def _on_deadline(self, node_id: str, node: Node) -> None:
        for executor_id in list(node.executors):
            executor = self._executors.all[executor_id]
            running = executor.running()
            if executor.alive():
                seq = 0 if running is None else running.seq
                self._executors.kill(executor, seq, "preempted", f"node {node_id} was taken away while it ran")
