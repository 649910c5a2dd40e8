"""Which executors must end for the sake of others: of lanes that starve, of other applications, of new code.

A lane that starves may have idle executors of others end at once, and busy ones of lanes that would still have no
smaller share than itself end after their message. A lane that has nothing at all may take from any that has
something, so that even a request for a whole node gets its turn. A node that is being cleared is claimed, so that what
becomes free there is not used by others meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from raycelery.scheduler.capacity import Capacity
from raycelery.scheduler.claims import Claims, Plan
from raycelery.scheduler.events import RayDemand
from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.lanes import Lanes, LaneState
from raycelery.scheduler.model import in_words
from raycelery.scheduler.nodes import UNIT, Node, Nodes, scaled
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn

#: It is looked at no more often than this whether others must make room, in seconds.
_SEEK_SECONDS = 0.05
#: That it waits is said after so long.
_RAY_LONG_SECONDS = 10.0
#: Executors of one lane that are looked at as candidates, and lanes that are.
_LOOKS = 8


class Preemption:
    """Has executors end for others.

    Arguments:
        turn: tells whether somebody may have to make room.
        timers: for when that is looked at again.
        lanes: that starve, and that have executors.
        nodes: that are cleared.
        occupancy: of nodes by executors.
        executors: that end.
        claims: of lanes on nodes.
        capacity: which lanes starve, and what they want.
    """

    def __init__(
        self, turn: Turn, timers: Timers, lanes: Lanes, nodes: Nodes, occupancy: Occupancy, executors: Executors,
        claims: Claims, capacity: Capacity,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._policy = turn.policy
        self._timers = timers
        self._lanes = lanes
        self._nodes = nodes
        self._occupancy = occupancy
        self._executors = executors
        self._claims = claims
        self._capacity = capacity
        self._look_again = Kind(self._on_look_again)
        #: Since when Ray work that is no application's waits, and for what.
        self._ray_since = float("-inf")
        self._ray_amounts: Mapping[str, float] = {}
        #: When it was last looked at; whether a timer is set for the next time.
        self._sought = float("-inf")
        self._armed = False

    # -- for lanes that starve ----------------------------------------------------------------------------------

    def seek(self) -> None:
        """Have others make room for lanes that starve, those with the smallest share first."""
        self._turn.seeking = False
        starved, now = self._capacity.starved, self._turn.now
        if not starved:
            return
        if now < self._sought + _SEEK_SECONDS:
            self._later()
            return
        self._sought = now
        looked = 0
        lanes = [self._lanes.active[key] for key in starved]
        for lane in sorted(lanes, key=lambda lane: (lane.share, lane.hungry_since)):
            busy = now >= lane.sought + self._policy.slice_seconds / 4
            if busy and looked >= 2 * _LOOKS:
                self._later()
                return
            if busy or self._executors.idle:
                looked += busy
                self._seek_room(lane, busy)

    def _later(self) -> None:
        if not self._armed:
            self._armed = True
            self._timers.add(self._sought + _SEEK_SECONDS, self._look_again, None)

    def _on_look_again(self, subject: None, token: None) -> None:
        self._armed = False
        self._turn.seeking = True

    def _seek_room(self, lane: LaneState, busy: bool) -> None:
        """Have idle executors of others end for a lane that cannot start any, and busy ones too."""
        if not len(self._nodes) or self._capacity.held_back(lane):
            return
        want = self._capacity.wanted(lane)
        if want <= 0:
            return
        if busy:
            lane.sought = self._turn.now
        if not self._nodes.could_fit(lane.shape):
            self._capacity.infeasible(lane)
            return
        if self._capacity.full():
            self._seek_place(lane)
            return
        claimed = sum(lane.claims.values())
        for node_id, count in list(lane.claims.items()):
            node = self._nodes.get(node_id)
            if node is not None:
                self._claims.carry_out(lane, self._plan(lane, node, count, claimed - 1))
        for node in self._idle_nodes(lane, want):
            while claimed < want:
                plan = self._plan(lane, node, lane.claims.get(node.id, 0) + 1, None)
                if plan is None:
                    break
                self._claims.claim(lane, node, plan)
                claimed += 1
        # It grows at most twofold at a time, so that what it takes proves useful.
        many = min(want, max(1, lane.ready)) - claimed - lane.coming
        if busy and many > 0:
            self._seek_busy(lane, claimed, min(many, _LOOKS))

    def _seek_busy(self, lane: LaneState, claimed: int, many: int) -> None:
        plans: list[tuple[int, int, Node]] = []
        for node in self._candidates(lane):
            plan = self._plan(lane, node, 1, claimed)
            if plan is not None:
                plans.append((sum(executor.lane.weight for executor in plan[1]), len(plans), node))
        for _, _, node in sorted(plans, key=lambda entry: entry[:2])[:many]:
            # Again, since those before may have used up what the others can spare.
            plan = self._plan(lane, node, 1, claimed)
            if plan is not None:
                self._claims.claim(lane, node, plan)
                claimed += 1

    def _idle_nodes(self, lane: LaneState, want: int) -> Iterator[Node]:
        seen = set()
        for other in list(self._lanes.active.values()):
            if other is not lane:
                for executor_id in list(islice(other.idle, want + _LOOKS)):
                    node = self._occupancy.node_of(self._executors.all[executor_id])
                    usable = node is not None and not node.draining and node.claim in (None, lane.key)
                    if node is not None and usable and node.id not in seen:
                        seen.add(node.id)
                        yield node

    def _candidates(self, lane: LaneState) -> list[Node]:
        """Return nodes worth clearing: those with the most free CPUs, and those of lanes with the largest shares."""
        found = {node.id: node for node in self._nodes.roomiest(lane.request, _LOOKS)}
        lanes = self._lanes.active.values()
        for other in heapq.nlargest(_LOOKS, lanes, key=lambda other: other.share - other.leaving):
            if other is not lane:
                for executor_id in islice(other.executors, 4 * _LOOKS):
                    node = self._occupancy.node_of(self._executors.all[executor_id])
                    if node is not None and node.open:
                        found[node.id] = node
        return [node for node in found.values() if node.could_fit(lane.request)]

    def _plan(self, lane: LaneState, node: Node, count: int, claimed: int | None) -> Plan | None:
        """Return the executors whose end would make room for ``count`` on a node, or None.

        Arguments:
            claimed: for how many executors the lane has other nodes cleared; None: only idle ones are to end.
        """
        missing = {name: amount * count - node.free.get(name, 0) for name, amount in lane.request.items()}

        def gain(executor: ExecutorState) -> bool:
            helps = False
            for name, lacking in missing.items():
                amount = executor.lane.request.get(name, 0)
                if lacking > 0 and amount and not (executor.blocked and name == "CPU"):
                    helps = True
                    missing[name] = lacking - amount
            return helps

        members = [self._executors.all[executor_id] for executor_id in node.executors]
        free = self._executors.idle
        idle: list[ExecutorState] = []
        for executor in members:
            if executor.leaving:
                gain(executor)
                if executor.id in free:
                    # It was to make room after its message, and has none any more.
                    idle.append(executor)
        busy: list[ExecutorState] = []
        losses: Counter[LaneState] = Counter()
        for executor in sorted((e for e in members if e.id in free), key=lambda e: e.idle_since):
            if max(missing.values(), default=0) <= 0:
                break
            if executor.lane is not lane and not executor.leaving and gain(executor):
                idle.append(executor)
        if claimed is not None:
            mine = lane.share + claimed * lane.weight
            for executor in sorted((e for e in members if e.id not in free), key=lambda e: e.ready_at):
                if max(missing.values(), default=0) <= 0:
                    break
                other = executor.lane
                if other is lane or executor.leaving or not executor.usable() or executor.blocked:
                    continue
                rest = other.share - other.leaving - losses[other]
                if (rest - other.weight >= mine + lane.weight or mine == 0 < rest) and gain(executor):
                    losses[other] += other.weight
                    busy.append(executor)
        return (idle, busy) if max(missing.values(), default=0) <= 0 else None

    def _seek_place(self, lane: LaneState) -> None:
        """Have one executor of others end, where there are as many as there may be."""
        executors, lanes = self._executors.all, self._lanes.active.values()
        if lane.asked or any(executor.leaving and not executor.yielding for executor in executors.values()):
            return
        resting = (executor_id for other in lanes for executor_id in other.resting)
        for executor_id in itertools.chain(resting, self._executors.idle):
            if executors[executor_id].lane is not lane and not executors[executor_id].lane.for_settlement:
                self._executors.stop(executors[executor_id])
                return
        others = [other for other in lanes if other is not lane and not other.for_settlement and other.ready]
        other = max(others, key=lambda other: other.share - other.leaving, default=None)
        if other is None:
            return
        rest = other.share - other.leaving
        if rest - other.weight >= lane.share + lane.weight or lane.share == 0 < rest:
            members = (executors[executor_id] for executor_id in other.executors)
            busy = [e for e in members if e.usable() and not e.blocked and not e.leaving]
            if busy:
                self._executors.ask(min(busy, key=lambda executor: executor.ready_at), lane.key)

    # -- for other applications, and for new code ---------------------------------------------------------------

    def make_room(self, amounts: Mapping[str, float], share: float) -> None:
        """Have executors end for another application: idle ones, and busy ones while this one has the larger share."""
        lacking = scaled(amounts)
        wanted = round(share * UNIT) + min(lacking.get("CPU", 0), UNIT)
        mine = sum(lane.share for lane in self._lanes.active.values() if not lane.for_settlement)
        idle = self._executors.idle
        for state in sorted(self._executors.all.values(), key=lambda e: not (e.leaving or e.id in idle)):
            request = state.lane.request
            if state.backfilled or state.leased or not any(lacking.get(name, 0) > 0 for name in request):
                continue
            if not state.leaving:
                if state.id in idle:
                    self._executors.stop(state)
                elif state.usable() and not state.blocked and mine - state.cpus >= wanted:
                    self._executors.ask(state, "")
                else:
                    continue
            mine -= state.cpus
            for name, amount in request.items():
                lacking[name] = lacking.get(name, 0) - amount

    def make_room_for_ray(self, demand: RayDemand) -> None:
        """Have executors end for Ray work that is no application's: idle ones, and busy ones down to an even share.

        It is asked for again and again while that work waits. So those that have been asked and do not end are left
        out: they may be waiting for that very work. Those that began last are asked first, for the same reason.
        """
        lacking, relieved = scaled(demand.amounts), 0
        mine, theirs = self._capacity.in_use(), round(demand.share * UNIT)
        if self._turn.now >= self._capacity.ray_waits[0]:
            self._ray_since = self._turn.now
        self._ray_amounts = dict(demand.amounts)
        # Ray would give what becomes free to new executors just as well.
        self._capacity.ray_waits = (self._turn.now + demand.seconds, theirs)
        idle = self._executors.idle
        candidates = [e for e in self._executors.all.values() if e.usable() and not (e.leaving or e.blocked)]
        for state in sorted(candidates, key=lambda e: (e.id not in idle, -e.head_since)):
            request = state.lane.request
            if state.backfilled or state.leased or not any(lacking.get(name, 0) > 0 for name in request):
                continue
            if state.id in idle:
                self._executors.stop(state)
            elif demand.most and (theirs + relieved == 0 or mine - state.cpus >= theirs + relieved + state.cpus):
                self._executors.ask(state, "")
            else:
                continue
            mine -= state.cpus
            relieved += state.cpus
            for name, amount in request.items():
                lacking[name] = lacking.get(name, 0) - amount

    def ray_work(self, now: float) -> str:
        """Say what Ray work has waited for a long time for what tasks hold, and which; "" where none has."""
        if now >= self._capacity.ray_waits[0] or now - self._ray_since < _RAY_LONG_SECONDS:
            return ""
        running = (e.running() for e in self._executors.all.values() if e.leaving and e.yielding == "")
        tasks = ", ".join(sorted({message.task for message in running if message is not None})) or "other programs"
        return (
            f"Ray work waits for {in_words(self._ray_amounts)} since {now - self._ray_since:.0f} s, held by {tasks}: "
            "tasks that wait for Ray work need num_cpus=0"
        )

    def retire(self, executor_ids: Iterable[int]) -> None:
        """Have executors end after what they run; others start where there is work."""
        for executor_id in executor_ids:
            state = self._executors.all.get(executor_id)
            if state is None or state.leaving:
                continue
            if executor_id in self._executors.idle or state.resting or (state.paused and not state.outstanding):
                self._executors.stop(state)
            elif state.alive() and not state.blocked:
                self._executors.ask(state, "")

    def retire_others(self, app: str) -> None:
        """Have the executors of all definitions but one end after what they run."""
        self.retire([state.id for state in self._executors.all.values() if state.lane.lane.app != app])
