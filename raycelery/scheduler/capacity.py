"""Which lane may start executors next, and which must give some up for it.

Lanes are compared by their share: the CPUs of their executors that do not wait for subtasks. Free room goes to the
lane with the smallest share. A lane that finds no room is *starved*: it may have idle executors of others end at once,
and busy ones of lanes that would still have no smaller share than itself end after their message. A lane that has
nothing at all may take from any that has something, so that even a request for a whole node gets its turn. A node that
is being cleared is claimed, so that what becomes free there is not used by others meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from raycelery.scheduler.executing import Executing
from raycelery.scheduler.lanes import ExecutorState, LaneState
from raycelery.scheduler.limits import Limit
from raycelery.scheduler.model import Policy, SettleReason, in_words
from raycelery.scheduler.nodes import UNIT, Node

#: Seconds of short work per executor: a smaller backlog does not start another one.
_START_SECONDS = 0.5
#: It is looked at no more often than this whether others must make room, in seconds.
_SEEK_SECONDS = 0.05
#: Seconds to wait after executors did not start twice, and at most: it is doubled each time.
_BACKOFF_SECONDS, _BACKOFF_MOST = 0.125, 30.0
#: Executors of one lane that are looked at as candidates, and lanes that are.
_LOOKS = 8

#: Executors to end now, and after their message.
Plan = tuple[list[ExecutorState], list[ExecutorState]]


class Capacity(Executing):
    """Starts executors, fairly."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        #: Lanes that want executors for which there is no room.
        self.starved: dict[str, None] = {}
        #: Whether all of them are to be tried again; whether an timer is set for that.
        self._retry = False
        self._retrying = False
        self._ticks = itertools.count()
        #: Gains of nodes, and places of executors taken, when all starved lanes were last looked at.
        self._seen = (0, 0)
        #: Whether others may have to make room; when that was last looked at; whether an timer is set for it.
        self.seeking = False
        self._sought = float("-inf")
        self._seek_armed = False

    def wanted(self, lane: LaneState) -> int:
        """Return how many more executors the lane's waiting messages could use now."""
        if not lane.waiting:
            return 0
        if self.next_stream(lane) is None:
            # Others had executors ready when a limit had room for it: it needs one to have its turn.
            return int(lane.missed and not (lane.starting or lane.quick or lane.idle))
        # What was requested ahead of the nodes counts only until there is a node.
        starting = len(lane.starting) - (len(lane.ahead) if lane.infeasible_since is None else 0)
        most = self.policy.max_executors + starting
        rooms: dict[Limit, int] = {}
        # How many could use an executor each; how many are short, and how long those run in all.
        many, brief, seconds = 0, 0, 0.0
        for stream in lane.rotation.some():
            bounded = [limit for limit in stream.limits if limit.maximum is not None]
            # A rate lets one run; when it lets the next run, an executor may be free again.
            count = 1 if stream.task in self.rates else stream.size
            for limit in bounded:
                count = min(count, rooms.setdefault(limit, max(0, limit.room)))
            for limit in bounded:
                rooms[limit] -= count
            if lane.lane.one_shot or not self.short(stream.task):
                many += count
            else:
                brief += count
                seconds += count * self.runtimes[stream.task][1]
            if many >= most:
                break
        if brief:
            # Short messages wait for executors that come free soon, if there are any.
            soon = len(lane.quick)
            enough = 0 if soon or starting else 1
            many += max(enough, int(seconds / _START_SECONDS) - soon)
        return max(0, min(many, most) - starting - len(lane.idle))

    def feed(self) -> None:
        """Start executors for the lanes that want more, the one with the smallest share first."""
        contenders: list[tuple[int, int, str]] = []
        hungry, self.hungry = self.hungry, {}
        again = dict(self.starved) if self.room_changed() else {}
        self._seen, self._retry = (self.nodes.gains, self.slots), False
        lanes = [lane for key in hungry | again if (lane := self.lanes.get(key)) is not None]
        # Of those that come together, what needs most starts last: it would keep all others waiting.
        for lane in sorted(lanes, key=lambda lane: lane.weight):
            key = lane.key
            if key in self.starved and key not in again:
                # Nothing has changed but its messages.
                if not lane.waiting or (self.next_stream(lane) is None and not lane.missed):
                    self._fed(lane)
            elif self.wanted(lane) > 0:
                if lane.hungry_since is None:
                    lane.hungry_since = next(self._ticks)
                contenders.append((lane.share, lane.hungry_since, key))
            else:
                self._fed(lane)
        heapq.heapify(contenders)
        while contenders:
            key = heapq.heappop(contenders)[2]
            lane = self.lanes[key]
            if not self._start_one(lane):
                self._starve(lane)
                continue
            want = self.wanted(lane)
            while sum(lane.claims.values()) > want:
                self.drop_claim(lane, next(iter(lane.claims)))
            if want:
                # It has had its turn.
                lane.hungry_since = next(self._ticks)
                heapq.heappush(contenders, (lane.share, lane.hungry_since, key))
            else:
                self._fed(lane)

    def _start_one(self, lane: LaneState) -> bool:
        for number in islice(lane.resting, _LOOKS):
            executor = self.executors[number]
            node = self.node_of(executor)
            if node is not None and node.claim in (None, lane.key) and node.fits({"CPU": lane.request.get("CPU", 0)}):
                self._use_claim(lane, node)
                self.wake(executor)
                return True
        node = self._spot(lane)
        if node is None:
            return False
        lane.infeasible_since = None
        lane.looked = -1
        self._use_claim(lane, node)
        self.start(lane, node)
        return True

    def room_changed(self) -> bool:
        """Return whether lanes that starved may find room now."""
        return self._retry or self.nodes.gains != self._seen[0] or self.slots < self._seen[1]

    def _fed(self, lane: LaneState) -> None:
        lane.hungry_since = None
        self.starved.pop(lane.key, None)
        for node_id in list(lane.claims):
            self.drop_claim(lane, node_id)
        for number in list(lane.asked):
            self.ask_no_more(self.executors[number])
        if not (lane.waiting or lane.executors or lane.to_settle or lane.failures):
            self.forget_lane(lane)

    def _starve(self, lane: LaneState) -> None:
        if lane.key not in self.starved:
            self.starved[lane.key] = None
            self.seeking = True
        if not self._retrying:
            # Whatever happens, all that starve are looked at again soon.
            self._retrying = True
            self.timers.add(self.now + self.policy.slice_seconds / 4, "retry", None)

    def on_retry(self, subject: None, token: None) -> None:
        """Try again what could not be started, from the beginning; an timer."""
        self._retrying = False
        for key in self.starved:
            self.lanes[key].looked = -1
        self._retry = self.seeking = bool(self.starved)

    def on_settlement(self, app: str, token: None) -> None:
        """Have bookkeeping looked at for which no executor has started so far; an timer."""
        self.dirty.update(self.settling_lanes.get(app, {}))

    def _full(self) -> bool:
        return self.slots >= self.policy.max_executors

    def _held_back(self, lane: LaneState) -> bool:
        """Return whether the lane may not start another executor now whatever room there is."""
        if self.now < lane.not_before or (lane.failures and lane.starting):
            return True
        # Executors without CPUs are bounded as if they needed one each.
        return not lane.request.get("CPU") and len(lane.executors) >= max(1, self.nodes.total_cpus // UNIT)

    def _spot(self, lane: LaneState) -> Node | None:
        """Return the node on which the lane's next executor is to start."""
        if self._full() or self._held_back(lane):
            return None
        for node_id in list(lane.claims):
            node = self.nodes.get(node_id)
            if node is None:
                del lane.claims[node_id]
            elif node.fits(lane.request):
                return node
        if self.nodes.gains == lane.looked:
            return None
        found = self.nodes.best_fit(lane.request, lane.looked)
        if found is None:
            lane.looked = self.nodes.gains
        return found

    # -- claims -------------------------------------------------------------------------------------------------

    def _claim(self, lane: LaneState, node: Node, plan: Plan) -> None:
        self.nodes.claim(node, lane.key)
        lane.claims[node.id] = lane.claims.get(node.id, 0) + 1
        self._carry_out(lane, plan)

    def _carry_out(self, lane: LaneState, plan: Plan | None) -> None:
        if plan is None:
            return
        for executor in plan[0]:
            self.stop(executor)
        for executor in plan[1]:
            self.ask(executor, lane.key)

    def _use_claim(self, lane: LaneState, node: Node) -> None:
        if node.claim is not None:
            lane.claims[node.id] -= 1
            if not lane.claims[node.id]:
                self.drop_claim(lane, node.id)

    def drop_claim(self, lane: LaneState, node_id: str) -> None:
        """Keep a node clear for the lane no more."""
        del lane.claims[node_id]
        node = self.nodes.get(node_id)
        if node is not None and node.claim == lane.key:
            self.nodes.unclaim(node)
        for number in list(lane.asked):
            executor = self.executors[number]
            if executor.node == node_id:
                self.ask_no_more(executor)

    # -- room that others must give up --------------------------------------------------------------------------

    def seek(self) -> None:
        """Have others make room for lanes that starve, those with the smallest share first."""
        self.seeking = False
        if not self.starved:
            return
        if self.now < self._sought + _SEEK_SECONDS:
            self._seek_again()
            return
        self._sought = self.now
        looked = 0
        for lane in sorted((self.lanes[key] for key in self.starved), key=lambda lane: (lane.share, lane.hungry_since)):
            busy = self.now >= lane.sought + self.policy.slice_seconds / 4
            if busy and looked >= 2 * _LOOKS:
                self._seek_again()
                return
            if busy or self.idle:
                looked += busy
                self._seek_room(lane, busy)

    def _seek_again(self) -> None:
        if not self._seek_armed:
            self._seek_armed = True
            self.timers.add(self._sought + _SEEK_SECONDS, "seek", None)

    def on_seek(self, subject: None, token: None) -> None:
        """Look again whether others may have to make room; an timer."""
        self._seek_armed = False
        self.seeking = True

    def _seek_room(self, lane: LaneState, busy: bool) -> None:
        """Have idle executors of others end for a lane that cannot start any, and busy ones too."""
        if not len(self.nodes) or self._held_back(lane):
            return
        want = self.wanted(lane)
        if want <= 0:
            return
        if busy:
            lane.sought = self.now
        if not self.nodes.could_fit(lane.shape):
            self._infeasible(lane)
            return
        if self._full():
            self._seek_place(lane)
            return
        claimed = sum(lane.claims.values())
        for node_id, count in list(lane.claims.items()):
            node = self.nodes.get(node_id)
            if node is not None:
                self._carry_out(lane, self._plan(lane, node, count, claimed - 1))
        for node in self._idle_nodes(lane, want):
            while claimed < want:
                plan = self._plan(lane, node, lane.claims.get(node.id, 0) + 1, None)
                if plan is None:
                    break
                self._claim(lane, node, plan)
                claimed += 1
        # It grows at most twofold at a time, so that what it takes proves useful.
        many = min(want, max(1, lane.ready)) - claimed - len(lane.starting)
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
                self._claim(lane, node, plan)
                claimed += 1

    def _idle_nodes(self, lane: LaneState, want: int) -> Iterator[Node]:
        seen = set()
        for other in list(self.lanes.values()):
            if other is not lane:
                for number in list(islice(other.idle, want + _LOOKS)):
                    node = self.node_of(self.executors[number])
                    if node is not None and node.id not in seen and node.claim in (None, lane.key):
                        seen.add(node.id)
                        yield node

    def _candidates(self, lane: LaneState) -> list[Node]:
        """Return nodes worth clearing: those with the most free CPUs, and those of lanes with the largest shares."""
        found = {node.id: node for node in self.nodes.roomiest(lane.request, _LOOKS)}
        for other in heapq.nlargest(_LOOKS, self.lanes.values(), key=lambda other: other.share - other.leaving):
            if other is not lane:
                for number in islice(other.executors, 4 * _LOOKS):
                    node = self.node_of(self.executors[number])
                    if node is not None and node.claim is None:
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

        members = [self.executors[number] for number in node.executors]
        idle: list[ExecutorState] = []
        for executor in members:
            if executor.leaving:
                gain(executor)
                if executor.id in self.idle:
                    # It was to make room after its message, and has none any more.
                    idle.append(executor)
        busy: list[ExecutorState] = []
        losses: Counter[LaneState] = Counter()
        for executor in sorted((e for e in members if e.id in self.idle), key=lambda e: e.idle_since):
            if max(missing.values(), default=0) <= 0:
                break
            if executor.lane is not lane and not executor.leaving and gain(executor):
                idle.append(executor)
        if claimed is not None:
            mine = lane.share + claimed * lane.weight
            for executor in sorted((e for e in members if e.id not in self.idle), key=lambda e: e.ready_at):
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
        if lane.asked or any(executor.leaving and not executor.yielding for executor in self.executors.values()):
            return
        resting = (number for other in self.lanes.values() for number in other.resting)
        for number in itertools.chain(resting, self.idle):
            if self.executors[number].lane is not lane and not self.executors[number].lane.for_settlement:
                self.stop(self.executors[number])
                return
        others = [
            other for other in self.lanes.values() if other is not lane and not other.for_settlement and other.ready
        ]
        other = max(others, key=lambda other: other.share - other.leaving, default=None)
        if other is None:
            return
        rest = other.share - other.leaving
        if rest - other.weight >= lane.share + lane.weight or lane.share == 0 < rest:
            members = (self.executors[number] for number in other.executors)
            busy = [e for e in members if e.usable() and not e.blocked and not e.leaving]
            if busy:
                self.ask(min(busy, key=lambda executor: executor.ready_at), lane.key)

    # -- what cannot be met -------------------------------------------------------------------------------------

    def _infeasible(self, lane: LaneState) -> None:
        if lane.infeasible_since is None:
            lane.infeasible_since = self.now
            self.timers.add(self.now + self.policy.infeasible_seconds, "infeasible", lane.key, self.now)
            if self.policy.demand_ahead and not lane.starting and not self._full():
                # Ray keeps the request pending, which is what makes an autoscaler add a node for it.
                lane.ahead.add(self.start(lane, None))

    def on_infeasible(self, key: str, since: float) -> None:
        """Give up on the messages of a lane that no node can hold; an timer."""
        lane = self.lanes.get(key)
        if lane is None or lane.infeasible_since != since:
            return
        lane.infeasible_since = None
        self.dirty[key] = None
        if not len(self.nodes) or self.nodes.could_fit(lane.shape):
            return
        asked, most = in_words(lane.lane.request), in_words(self.nodes.largest(lane.lane.request))
        reason = f"no node has {asked}: the most that any has is {most}; ask for less, or add a node"
        self.give_up(lane, "infeasible", reason)
        for number in list(lane.starting):
            self.kill(self.executors[number], 0, "infeasible", "no node is large enough for it")

    def give_up(self, lane: LaneState, settle_reason: SettleReason, reason: str) -> None:
        """Give up on all messages of a lane."""
        for queue in lane.rotation.queues.values():
            for stream in queue.streams.values():
                for message in self.drain(stream):
                    message.settle_reason, message.reason = settle_reason, reason
                    self.enqueue(message)

    def back_off(self, lane: LaneState) -> None:
        """Have a lane wait before it starts another executor, longer each time but the first."""
        if lane.failures > 1:
            lane.not_before = self.now + min(_BACKOFF_MOST, _BACKOFF_SECONDS * 2.0 ** min(lane.failures, 20))
            if lane.for_settlement:
                self.timers.add(lane.not_before, "settlement", lane.lane.app)
