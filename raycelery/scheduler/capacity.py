"""Which lane may start executors next.

Lanes are compared by their share: the CPUs of their executors that do not wait for subtasks. Free room goes to the
lane with the smallest share. A lane that finds no room is *starved*: others may have to make room for it, see
:mod:`raycelery.scheduler.preemption`.
"""

from __future__ import annotations

import heapq
import itertools
from itertools import islice

from raycelery.scheduler.autoscaler import Autoscaler
from raycelery.scheduler.claims import Claims
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.gates import Limit
from raycelery.scheduler.lanes import Lanes, LaneState
from raycelery.scheduler.limits import Limits
from raycelery.scheduler.model import SettleReason, in_words
from raycelery.scheduler.nodes import UNIT, Node, Nodes
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.runtimes import Runtimes
from raycelery.scheduler.settlement import Settlement
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn
from raycelery.scheduler.waiting import Waiting

#: Seconds of short work per executor: a smaller backlog does not start another one.
_START_SECONDS = 0.5
#: Seconds to wait after executors did not start twice, and at most: it is doubled each time.
_BACKOFF_SECONDS, _BACKOFF_MOST = 0.125, 30.0
#: Executors of one lane that are looked at whether they can be woken.
_LOOKS = 8


class Capacity:
    """Starts executors, fairly.

    Arguments:
        turn: tells which lanes may want executors.
        timers: for what is tried again, and for requests that no node can hold.
        lanes: that want executors.
        waiting: what they want them for.
        limits: that bound how many are of use.
        nodes: where they could run.
        autoscaler: which nodes may come.
        occupancy: how many there are.
        executors: that are started.
        claims: of lanes on nodes.
        runtimes: of tasks.
        settlement: told when executors that could do it do not start.
    """

    def __init__(
        self, turn: Turn, timers: Timers, lanes: Lanes, waiting: Waiting, limits: Limits, nodes: Nodes,
        autoscaler: Autoscaler, occupancy: Occupancy, executors: Executors, claims: Claims, runtimes: Runtimes,
        settlement: Settlement,
    ) -> None:  # fmt: skip
        self._turn = turn
        self._policy = turn.policy
        self._timers = timers
        self._lanes = lanes
        self._waiting = waiting
        self._limits = limits
        self._nodes = nodes
        self._autoscaler = autoscaler
        self._occupancy = occupancy
        self._executors = executors
        self._claims = claims
        self._runtimes = runtimes
        self._settlement = settlement
        self._try_again = Kind(self._on_retry)
        self._infeasible_for_long = Kind(self._on_infeasible)
        #: Keys of lanes that want executors for which there is no room, and since when.
        self.starved: dict[str, float] = {}
        #: Whether all of them are to be tried again; whether a timer is set for that.
        self._retry = False
        self.retry_armed = False
        self._ticks = itertools.count()
        #: What becomes free is for Ray work that is no application's, which has so many CPUs, up to this time.
        self.ray_waits: tuple[float, int] = (float("-inf"), 0)
        #: Gains of nodes, and places of executors taken, when all starved lanes were last looked at.
        self._seen = (0, 0)

    # -- what is wanted -----------------------------------------------------------------------------------------

    def wanted(self, lane: LaneState) -> int:
        """Return how many more executors the lane's waiting messages could use now."""
        if not lane.waiting:
            return 0
        if self._waiting.next_stream(lane) is None:
            # Others had executors ready when a limit had room for it: it needs one to have its turn.
            return int(lane.missed and not (lane.starting or lane.quick or lane.idle))
        # What is asked for ahead of nodes is on top, except for the one that is where no autoscaler is known.
        starting = lane.coming if lane.infeasible_since is None else len(lane.starting)
        most = self._policy.max_executors + starting
        rooms: dict[Limit, int] = {}
        # How many could use an executor each; how many are short, and how long those run in all.
        many, brief, seconds = 0, 0, 0.0
        for stream in lane.rotation.some():
            bounded = [limit for limit in stream.limits if limit.maximum is not None]
            # A rate lets one run; when it lets the next run, an executor may be free again.
            count = 1 if stream.task in self._limits.rates else stream.size
            for limit in bounded:
                count = min(count, rooms.setdefault(limit, max(0, limit.room)))
            for limit in bounded:
                rooms[limit] -= count
            if lane.lane.one_shot or not self._executors.short(stream.task):
                many += count
            else:
                brief += count
                seconds += count * (self._runtimes.mean(stream.task) or 0.0)
            if many >= most:
                break
        if brief:
            # Short messages wait for executors that come free soon, if there are any.
            soon = len(lane.quick)
            if lane.leaving:
                soon -= sum(self._executors.all[executor_id].leaving for executor_id in lane.quick)
            enough = 0 if soon or starting else 1
            many += max(enough, int(seconds / _START_SECONDS) - soon)
        return max(0, min(many, most) - starting - len(lane.idle))

    def full(self) -> bool:
        """Return whether the application has as many executors as it may have."""
        return self._occupancy.slots >= self._policy.max_executors

    def held_back(self, lane: LaneState) -> bool:
        """Return whether the lane may not start another executor now whatever room there is."""
        if self._turn.now < lane.not_before or (lane.failures and lane.coming):
            return True
        until, theirs = self.ray_waits
        if self._turn.now < until and lane.request and self.in_use() >= theirs:
            return True
        # Executors without CPUs are bounded as if they needed one each.
        return not lane.request.get("CPU") and len(lane.executors) >= max(1, self._nodes.total_cpus // UNIT)

    def in_use(self) -> int:
        """Return the CPUs of all executors but those that wait for subtasks and that are to end."""
        return sum(one.share - one.leaving for one in self._lanes.active.values() if not one.for_settlement)

    # -- what is started ----------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Start executors for the lanes that want more, the one with the smallest share first."""
        contenders: list[tuple[int, int, str]] = []
        hungry, self._turn.hungry = self._turn.hungry, {}
        again = dict.fromkeys(self.starved) if self.room_changed() else {}
        self._seen, self._retry = (self._nodes.gains, self._occupancy.slots), False
        lanes = [lane for key in hungry | again if (lane := self._lanes.active.get(key)) is not None]
        # Of those that come together, what needs most starts last: it would keep all others waiting.
        for lane in sorted(lanes, key=lambda lane: lane.weight):
            key = lane.key
            if key in self.starved and key not in again:
                # Nothing has changed but its messages.
                if not lane.waiting or (self._waiting.next_stream(lane) is None and not lane.missed):
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
            lane = self._lanes.active[key]
            if not self._start_one(lane):
                self._starve(lane)
                continue
            want = self.wanted(lane)
            while sum(lane.claims.values()) > want:
                self._claims.drop(lane, next(iter(lane.claims)))
            if want:
                # It has had its turn.
                lane.hungry_since = next(self._ticks)
                heapq.heappush(contenders, (lane.share, lane.hungry_since, key))
            else:
                self._fed(lane)

    def _start_one(self, lane: LaneState) -> bool:
        for executor_id in islice(lane.resting, _LOOKS):
            executor = self._executors.all[executor_id]
            node = self._occupancy.node_of(executor)
            free = node is not None and not node.draining and node.claim in (None, lane.key)
            if node is not None and free and node.fits({"CPU": executor.cpus}):
                self._claims.use(lane, node)
                self._executors.wake(executor)
                return True
        node = self._spot(lane)
        if node is None:
            return False
        lane.infeasible_since = None
        lane.looked = -1
        self._claims.use(lane, node)
        self._executors.start(lane, node)
        return True

    def _spot(self, lane: LaneState) -> Node | None:
        """Return the node on which the lane's next executor is to start."""
        if self.full() or self.held_back(lane):
            return None
        for node_id in list(lane.claims):
            node = self._nodes.get(node_id)
            if node is None:
                del lane.claims[node_id]
            elif node.fits(lane.request):
                return node
        if self._nodes.gains == lane.looked:
            return None
        found = self._nodes.best_fit(lane.request, lane.looked)
        if found is None:
            lane.looked = self._nodes.gains
        return found

    def room_changed(self) -> bool:
        """Return whether lanes that starved may find room now."""
        return self._retry or self._nodes.gains != self._seen[0] or self._occupancy.slots < self._seen[1]

    def _fed(self, lane: LaneState) -> None:
        lane.hungry_since = None
        if lane.key in self.starved:
            del self.starved[lane.key]
            self._turn.growing = True
        for node_id in list(lane.claims):
            self._claims.drop(lane, node_id)
        for executor_id in list(lane.asked):
            self._executors.ask_no_more(self._executors.all[executor_id])
        if not (lane.waiting or lane.executors or lane.to_settle or lane.failures):
            self._waiting.forget(lane)
            self._lanes.forget(lane)

    def _starve(self, lane: LaneState) -> None:
        if lane.key not in self.starved:
            self.starved[lane.key] = self._turn.now
            self._turn.seeking = self._turn.growing = True
        if not self.retry_armed:
            # Whatever happens, all that starve are looked at again soon.
            self.retry_armed = True
            self._timers.add(self._turn.now + self._policy.slice_seconds / 4, self._try_again, None)

    def _on_retry(self, subject: None, token: None) -> None:
        """Try again what could not be started, from the beginning."""
        self.retry_armed = False
        for key in self.starved:
            self._lanes.active[key].looked = -1
        self._retry = bool(self.starved)
        self._turn.seeking = self._turn.growing = self._retry

    # -- what cannot be met -------------------------------------------------------------------------------------

    def may_come(self, lane: LaneState) -> bool:
        """Return whether the autoscaler may add a node for what a lane asks for, as far as is known."""
        return self._policy.max_nodes_ahead > 0 and self._autoscaler.could_hold(lane.shape)

    def infeasible(self, lane: LaneState) -> None:
        """Take note that no node there is could ever hold what a lane asks for."""
        if self.may_come(lane):
            return
        if self._autoscaler.known and self._policy.max_nodes_ahead:
            self._never_comes(lane, self._autoscaler.largest(lane.lane.request), "add a node type")
        elif lane.infeasible_since is None:
            now = self._turn.now
            lane.infeasible_since = now
            self._timers.add(now + self._policy.infeasible_seconds, self._infeasible_for_long, lane.key, now)
            if self._policy.demand_ahead and not lane.starting and not self.full():
                # Ray keeps the request pending, which is what makes an autoscaler add a node for it.
                self._executors.start(lane, None, ahead=True)

    def _on_infeasible(self, key: str, since: float) -> None:
        """Give up on the messages of a lane that no node can hold."""
        lane = self._lanes.active.get(key)
        if lane is None or lane.infeasible_since != since:
            return
        lane.infeasible_since = None
        self._turn.changed[key] = None
        if not len(self._nodes) or self._nodes.could_fit(lane.shape):
            return
        most = in_words(self._nodes.largest(lane.lane.request))
        self._never_comes(lane, f"the most that any has is {most}", "add a node")

    def _never_comes(self, lane: LaneState, most: str, remedy: str) -> None:
        """Give up on a lane for which there is no node and will be none."""
        reason = f"no node has {in_words(lane.lane.request)}: {most}; ask for less, or {remedy}"
        self._give_up(lane, "infeasible", reason)
        for executor_id in list(lane.starting):
            self._executors.kill(self._executors.all[executor_id], 0, "infeasible", "no node is large enough for it")

    def _give_up(self, lane: LaneState, settle_reason: SettleReason, reason: str) -> None:
        """Give up on all messages of a lane."""
        for queue in lane.rotation.queues.values():
            for stream in queue.streams.values():
                for message in self._waiting.drain(stream):
                    message.settle_reason, message.reason = settle_reason, reason
                    self._waiting.enqueue(message)

    def did_not_start(self, lane: LaneState, attempt: int, reason: str, tries: int) -> None:
        """Take note that an executor has ended before it was ready; the lane is given up after so many tries."""
        if attempt == lane.tries:
            lane.tries += 1
            lane.failures += 1
            self._back_off(lane)
        if lane.failures < tries or lane.ready or lane.coming:
            return
        app = lane.lane.app
        if lane.for_settlement and any(other.ready for other in self._lanes.active.values() if other.lane.app == app):
            return
        lane.failures, lane.not_before = 0, self._turn.now
        if lane.for_settlement:
            self._settlement.drop_all(app, reason)
        else:
            self._give_up(lane, "undeliverable", f"its executors do not start: {reason}")

    def _back_off(self, lane: LaneState) -> None:
        """Have a lane wait before it starts another executor, longer each time but the first."""
        if lane.failures > 1:
            seconds = min(_BACKOFF_MOST, _BACKOFF_SECONDS * 2.0 ** min(lane.failures, 20))
            lane.not_before = self._turn.now + seconds
            if lane.for_settlement:
                self._settlement.try_again_at(lane.lane.app, lane.not_before)
