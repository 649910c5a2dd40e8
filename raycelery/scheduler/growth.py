"""Which executors are asked for before there are nodes for them, so that Ray's autoscaler adds nodes.

The autoscaler sees what is pending in Ray. So executors that no present node has room for are started all the same,
*ahead* of the nodes: Ray keeps them pending, counts them by what they request, and starts them on the first nodes that
come. They are given nodes that they must not run on, all those that there are: what becomes free there goes to whom the
scheduler decides. They end when they are wanted no more; what is pending in Ray holds nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from raycelery.scheduler.autoscaler import Autoscaler
from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.events import AutoscalerFound
from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.lanes import Lanes, LaneState
from raycelery.scheduler.model import in_words
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.runtimes import Runtimes
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn

#: Executors that are asked for ahead at most, as the autoscaler looks at no more; and nodes that they name in all.
_MOST = 1000
_MOST_NAMED = 20_000
#: A lane that has executors asks for nodes once it has starved for so long: what is done by then needs none.
_PATIENCE_SECONDS = 1.0
#: Executors that were asked for before the latest nodes had come are asked for again once none has come for so long.
_CALM_SECONDS = 10.0


class Growth:
    """Asks for executors ahead of nodes, and withdraws those that are wanted no more.

    Arguments:
        turn: the time.
        timers: for executors that are to be asked for again.
        lanes: that want executors.
        nodes: that there are.
        occupancy: how many executors there are.
        executors: that are asked for.
        runtimes: of tasks: what is done before a node can come needs none.
        autoscaler: which nodes may come.
        capacity: which lanes starve, and how many executors they could use.
    """

    def __init__(
        self, turn: Turn, timers: Timers, lanes: Lanes, nodes: Nodes, occupancy: Occupancy, executors: Executors,
        runtimes: Runtimes, autoscaler: Autoscaler, capacity: Capacity,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._policy = turn.policy
        self._timers = timers
        self._lanes = lanes
        self._nodes = nodes
        self._occupancy = occupancy
        self._executors = executors
        self._runtimes = runtimes
        self._autoscaler = autoscaler
        self._capacity = capacity
        self._calm = Kind(self._on_calm)
        self._calm_armed = False
        #: How many nodes have come, and when the last one did.
        self._arrivals = 0
        self._arrived = float("-inf")
        #: How many nodes are asked for, and the lanes that wait for them, or for more than there may be.
        self.nodes_asked = 0
        self.waiting: list[str] = []

    # -- what happens -------------------------------------------------------------------------------------------

    def found(self, event: AutoscalerFound) -> None:
        """See :class:`raycelery.scheduler.events.AutoscalerFound`."""
        self._autoscaler.found(event.node_types, event.maximum)
        for lane in self._lanes.active.values():
            if self._capacity.may_come(lane):
                lane.infeasible_since = None
            lane.sought = float("-inf")
        self._turn.seeking = self._turn.growing = True

    def arrived(self, node: Node) -> None:
        """Take note of a new node: Ray starts executors there that were asked for ahead, the oldest first."""
        self._turn.growing = True
        oldest = None
        for executor in sorted(self._ahead(), key=lambda one: one.asked_at):
            if node.fits(executor.lane.request) and not self._capacity.full():
                self._executors.book(executor, node)
                self._turn.changed[executor.lane.key] = None
                oldest = oldest or executor
        self._arrivals += 1
        self._arrived = self._turn.now
        if oldest is not None:
            self._autoscaler.came(self._turn.now - oldest.asked_at)

    def _ahead(self) -> Iterable[ExecutorState]:
        """Yield the executors that are asked for ahead and not withdrawn."""
        for lane in self._lanes.active.values():
            for executor_id in lane.ahead:
                executor = self._executors.all[executor_id]
                if executor.killed is None:
                    yield executor

    # -- what is asked for --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Ask for the executors that are wanted beyond what there is room for, and for no others."""
        self._turn.growing = False
        ahead: dict[str, list[ExecutorState]] = {}
        for executor in self._ahead():
            ahead.setdefault(executor.lane.key, []).append(executor)
        if not (self._autoscaler.known and self._policy.max_nodes_ahead):
            return
        wanted = self._plan()
        for key in [*ahead.keys() - wanted.keys(), *wanted]:
            lane, mine = self._lanes.active[key], sorted(ahead.get(key, []), key=lambda one: one.asked_at)
            for executor in mine[wanted[key] :]:
                self._withdraw(executor)
            self._ask_again(lane, mine[: wanted[key]])
            for _ in range(wanted[key] - len(mine)):
                self._ask(lane, self._turn.now)

    def _plan(self) -> Counter[str]:
        """Return how many executors each lane is to have ahead, in all."""
        room, most = self._autoscaler.room(), self._policy.max_nodes_ahead
        left = min(self._policy.max_executors - self._occupancy.slots, _MOST, _MOST_NAMED // max(1, len(self._nodes)))
        needs = {}
        for key in self._capacity.starved:
            lane = self._lanes.active[key]
            if self._capacity.may_come(lane) and (need := self._need(lane)) > 0:
                needs[key] = need
        self.waiting = list(needs)
        planned: Counter[str] = Counter()
        turns = sorted(needs, key=lambda key: (self._lanes.active[key].share, self._lanes.active[key].hungry_since))
        while turns:
            going_on = []
            for key in turns:
                if left > 0 and planned[key] < needs[key] and room.put(self._lanes.active[key].shape, most):
                    planned[key] += 1
                    left -= 1
                    going_on.append(key)
            turns = going_on
        self.nodes_asked = len(room)
        return planned

    def _need(self, lane: LaneState) -> int:
        """Return how many executors on nodes yet to come would find something to do there."""
        now = self._turn.now
        at_work = lane.ready + lane.coming
        patient = at_work and not lane.ahead
        if now < lane.not_before or (patient and now < self._capacity.starved[lane.key] + _PATIENCE_SECONDS):
            return 0
        need = self._capacity.wanted(lane)
        seconds = self._autoscaler.seconds
        if not (need and seconds):
            return need
        work, messages = 0.0, 0
        for stream in lane.rotation.some():
            mean = self._runtimes.mean(stream.task)
            if mean is None:
                return need
            messages += stream.size
            work += stream.size * mean
        if messages < lane.waiting or not work:
            return need
        left = work - seconds * at_work
        return max(0, min(need, math.ceil(left / (work / messages))))

    def _ask(self, lane: LaneState, since: float) -> None:
        here = tuple(node.id for node in self._nodes if node.could_fit(lane.request))
        executor = self._executors.all[self._executors.start(lane, None, ahead=True, not_on=here)]
        executor.asked_at, executor.asked_before = since, self._arrivals

    def _withdraw(self, executor: ExecutorState) -> None:
        self._executors.kill(executor, 0, "terminated", "no node is wanted for it any more")

    def _ask_again(self, lane: LaneState, executors: list[ExecutorState]) -> None:
        """Replace executors that were asked for before the latest nodes had come: they could run on those."""
        stale = [executor for executor in executors if executor.asked_before < self._arrivals]
        if not stale:
            return
        calm_at = self._arrived + _CALM_SECONDS
        if self._turn.now >= calm_at:
            for executor in stale:
                self._ask(lane, executor.asked_at)
                self._withdraw(executor)
        elif not self._calm_armed:
            self._calm_armed = True
            self._timers.add(calm_at, self._calm, None)

    def _on_calm(self, subject: None, token: None) -> None:
        self._calm_armed = False
        self._turn.growing = True

    # -- what is said of it -------------------------------------------------------------------------------------

    def said(self) -> str:
        """Say in a sentence what waits for nodes; "" where nothing does."""
        parts = []
        for lane in filter(None, map(self._lanes.active.get, self.waiting)):
            tasks = "1 task waits" if lane.waiting == 1 else f"{lane.waiting:,} tasks wait"
            parts.append(f"{tasks} for {in_words(lane.lane.request)}")
        if not parts:
            return ""
        nodes = "1 node" if self.nodes_asked == 1 else f"{self.nodes_asked:,} nodes"
        what = f"is adding {nodes}" if self.nodes_asked else "has added as many nodes as it may"
        return f"{', '.join(parts)}: autoscaler {what}"
