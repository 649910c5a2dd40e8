"""Which executors end though they are at work now and then, so that nodes come to be empty.

Where less runs than there are executors for, those that have worked last work again. So the others stay idle and end,
but those that work may be on many nodes, each of which stays for a few of them. So once a node's executors could all be
replaced by ones that have been idle on other nodes for a while, they end: the autoscaler can take the node.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from raycelery.scheduler.autoscaler import Autoscaler
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.lanes import LaneState
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.preemption import Preemption
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn

#: Executors that have been idle for this part of ``idle_seconds`` could take the place of others; looks in that time.
_PART = 0.5
_LOOKS = 4


class Packing:
    """Has the executors of nodes end that the others can do without, one node at a time.

    Arguments:
        turn: the time.
        timers: for the next look.
        nodes: of the cluster.
        executors: that run there.
        autoscaler: only where there is one is an empty node worth anything.
        preemption: has executors end after what they run.
    """

    def __init__(
        self, turn: Turn, timers: Timers, nodes: Nodes, executors: Executors, autoscaler: Autoscaler,
        preemption: Preemption,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._timers = timers
        self._nodes = nodes
        self._executors = executors
        self._autoscaler = autoscaler
        self._preemption = preemption
        self._look = Kind(self._on_look)
        self._armed = False

    def settle(self) -> None:
        """See whether to look again; to be called once all else is decided."""
        if not self._armed and self._autoscaler.known and self._executors.idle:
            self._armed = True
            seconds = max(0.1, self._turn.policy.idle_seconds * _PART / _LOOKS)
            self._timers.add(self._turn.now + seconds, self._look, None)

    def _on_look(self, subject: None, token: None) -> None:
        self._armed = False
        long_idle = self._turn.now - self._turn.policy.idle_seconds * _PART
        spare: defaultdict[LaneState, Counter[str]] = defaultdict(Counter)
        for executor_id in self._executors.idle:
            executor = self._executors.all[executor_id]
            if executor.node is not None and executor.idle_since <= long_idle and not executor.lane.waiting:
                spare[executor.lane][executor.node] += 1
        if not spare:
            return
        used = [node for node in self._nodes if node.executors and not node.draining]
        for node in sorted(used, key=self._at_work):
            if self._spares(node, spare):
                self._turn.note("packed", node.id)
                self._preemption.retire(list(node.executors))
                return

    def _at_work(self, node: Node) -> int:
        return sum(bool(self._executors.all[executor_id].outstanding) for executor_id in node.executors)

    def _spares(self, node: Node, spare: defaultdict[LaneState, Counter[str]]) -> bool:
        """Return whether all that works on a node could as well work on executors that are idle elsewhere."""
        needed: Counter[LaneState] = Counter()
        for executor_id in node.executors:
            executor = self._executors.all[executor_id]
            if executor.leaving or executor.blocked or executor.paused or not executor.ready:
                return False
            needed[executor.lane] += bool(executor.outstanding)
        return all(count <= spare[lane].total() - spare[lane][node.id] for lane, count in needed.items())
