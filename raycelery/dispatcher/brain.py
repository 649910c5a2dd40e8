"""The dispatcher's brain: a pure state machine. Events in, decisions out; no Ray, no clock, no thread, no I/O.

The caller tells what happened, with the time, and then asks :meth:`Brain.decide` what to do. ``log`` holds the latest
events and decisions, which tell why a message waited.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raycelery.dispatcher.lanes import ExecutorState, LaneState
from raycelery.dispatcher.limits import Rate
from raycelery.dispatcher.model import Decision, Kill, Lane, Message, Policy, Recall, Stats
from raycelery.dispatcher.nodes import UNIT, scaled
from raycelery.dispatcher.scheduling import Scheduling

#: Revoked ids that are remembered for messages yet to come, as many as Celery's worker remembers.
_REVOKED = 50_000


class Brain(Scheduling):
    """Queues, limits and lanes of one application.

    Arguments:
        policy: what may be tuned.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        super().__init__(policy or Policy())
        #: Messages that are not finished.
        self.pending = 0
        self.scheduled = 0
        self._seq = 0
        self._ids: dict[str, Message] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._revoked_stamps: dict[str, list[Any]] = {}
        self._stamped: dict[int, Message] = {}

    @property
    def wake_at(self) -> float | None:
        """When :meth:`decide` is to be called even if nothing happens, in seconds since the epoch."""
        return self._alarms[0][0] if self._alarms else None

    # -- messages -----------------------------------------------------------------------------------------------

    def add_lane(self, lane: Lane) -> None:
        """Make a lane known; again is harmless."""
        if lane.key not in self.lanes:
            self.lanes[lane.key] = LaneState(lane)

    def submit(self, message: Message, now: float) -> None:
        """Take a message in; its lane must be known."""
        self.now = now
        self._seq += 1
        message.seq, message.submitted = self._seq, now
        self.pending += 1
        self._ids[message.id] = message
        if message.stamps:
            self._stamped[message.seq] = message
        if message.verdict is None and (message.id in self._revoked or self._stamp_revoked(message)):
            message.verdict = "revoked"
        if message.verdict is None and message.eta is not None and message.eta > now:
            message.place = "eta"
            self.scheduled += 1
            self.alarm(message.eta, "eta", message)
        else:
            self.enqueue(message)

    def finished(self, executor: int, seq: int, runtime: float, now: float) -> Message | None:
        """Note that an executor is done with a message, and return it; late and double reports are ignored.

        Arguments:
            runtime: seconds it ran.
        """
        message = self._reported(executor, seq, now)
        if message is None:
            return None
        if message.verdict is None or message.verdict == "revoked":
            count, mean = self.runtimes.get(message.task, (0, 0.0))
            weight = 1 / min(count + 1, 20)
            self.runtimes[message.task] = (count + 1, mean + (runtime - mean) * weight)
        self._gone(message)
        return message

    def requeued(self, executor: int, seq: int, now: float) -> None:
        """Note that an executor gave a message back to be delivered again."""
        message = self._reported(executor, seq, now)
        if message is None:
            return
        if message.verdict in ("lost", "timeout"):
            if message.deliveries >= self.policy.max_deliveries:
                message.verdict = "undeliverable"
                message.reason = (
                    f"it was delivered {message.deliveries} times and its executor died each time "
                    f"(ray_max_deliveries={self.policy.max_deliveries}); the last time: {message.reason}"
                )
            else:
                message.verdict, message.reason = None, ""
        else:
            # The task's own wish: it goes behind the others.
            self._seq += 1
            self._stamped.pop(message.seq, None)
            message.seq = self._seq
            message.rejections += 1
            if message.stamps:
                self._stamped[message.seq] = message
        self.enqueue(message)

    def recalled(self, executor: int, seqs: Sequence[int], now: float) -> None:
        """Note which messages an executor gave back without having begun them."""
        self.now = now
        state = self.executors.get(executor)
        if state is None:
            return
        state.recalling = False
        for seq in seqs:
            message = self._take_back(state, seq)
            if message is not None:
                self.enqueue(message)
        self._after_progress(state)

    def revoke(self, ids: Iterable[str], now: float, terminate: bool = False) -> None:
        """Revoke messages by task id, those yet to be submitted included.

        Arguments:
            terminate: also kill the executors that are running them.
        """
        self.now = now
        for task_id in ids:
            self._revoked[task_id] = None
            self._revoked.move_to_end(task_id)
            if len(self._revoked) > _REVOKED:
                self._revoked.popitem(last=False)
            message = self._ids.get(task_id)
            if message is not None:
                self._revoke(message, terminate)

    def revoke_stamps(self, stamps: Mapping[str, Any], now: float, terminate: bool = False) -> None:
        """Revoke messages by stamped headers, those yet to be submitted included."""
        self.now = now
        for name, value in stamps.items():
            known = self._revoked_stamps.setdefault(name, [])
            known.extend(one for one in _as_list(value) if one not in known)
        for message in list(self._stamped.values()):
            if self._stamp_revoked(message):
                self._revoke(message, terminate)

    def _stamp_revoked(self, message: Message) -> bool:
        if not message.stamps or not self._revoked_stamps:
            return False
        for name, revoked in self._revoked_stamps.items():
            value = message.stamps.get(name)
            if value is not None and (value in revoked or any(one in revoked for one in _as_list(value))):
                return True
        return False

    def _revoke(self, message: Message, terminate: bool) -> None:
        if message.verdict is not None:
            return
        if message.place == "stream":
            self.withdraw(message)
        elif message.place == "eta":
            self.scheduled -= 1
        elif message.place == "executor":
            state = self.executors[message.executor]
            if state.running() is not message:
                message.verdict = "revoked"
                self._recall(state)
            elif terminate:
                self._kill(state, "terminated", f"task {message.id} was terminated")
            return
        message.verdict = "revoked"
        self.enqueue(message)

    def purge(self, queue: str | None = None) -> list[Message]:
        """Remove and return the messages that wait, or wait for their time; all queues' or one's."""
        purged = []
        for stream in self.streams.values():
            if queue is None or stream.queue == queue:
                for message in stream.drain():
                    self.leave_stream(message)
                    purged.append(message)
                self._offer(stream)
        for _, _, kind, message, _ in self._alarms:
            if kind == "eta" and message.place == "eta" and (queue is None or message.queue == queue):
                self.scheduled -= 1
                purged.append(message)
        for message in purged:
            self._gone(message)
        return purged

    def _gone(self, message: Message) -> None:
        message.place = ""
        self.pending -= 1
        if self._ids.get(message.id) is message:
            del self._ids[message.id]
        self._stamped.pop(message.seq, None)

    # -- executors ----------------------------------------------------------------------------------------------

    def executor_ready(self, executor: int, node: str, now: float) -> None:
        """Note that an executor has loaded the application, and where."""
        self.now = now
        state = self.executors.get(executor)
        if state is None or state.ready:
            return
        lane = state.lane
        state.ready, state.ready_at = True, now
        lane.starting.discard(executor)
        lane.ready += 1
        lane.failures = 0
        if state.node != node:
            self.unplace(state)
            actual = self.nodes.get(node)
            if actual is not None:
                self.place(state, actual)
            state.node = node
        self.log.append((now, "ready", executor, node))
        self.now_idle(state)
        self._dirty.update(self.verdict_lanes[lane.lane.app])

    def executor_failed(self, executor: int, reason: str, now: float) -> None:
        """Note that an executor ended before it was ready."""
        self.now = now
        state = self._remove(executor)
        if state is None:
            return
        lane = state.lane
        lane.failures += state.killed is None
        self.log.append((now, "failed", executor, reason))
        if lane.failures >= 2 and not lane.ready and not lane.starting:
            lane.failures = 0
            if lane.lane.key.startswith("clerk:"):
                self._drop_verdicts(lane.lane.app, reason)
            else:
                self._undeliverable(lane, f"its executors do not start: {reason}")
        self._dirty[lane.lane.key] = None
        self._dirty.update(self.verdict_lanes[lane.lane.app])

    def executor_stopped(self, executor: int, now: float) -> None:
        """Note that an executor has ended in order; what it had not begun goes elsewhere."""
        self.now = now
        state = self._remove(executor)
        if state is not None:
            self.log.append((now, "stopped", executor))
            self._return_all(state)

    def executor_lost(self, executor: int, reason: str, now: float) -> None:
        """Note that an executor died: the message it was running is settled by Celery, the others go elsewhere."""
        self.now = now
        state = self._remove(executor)
        if state is None:
            return
        self.log.append((now, "lost", executor, reason))
        running = state.running()
        if running is not None:
            self._take_back(state, running.seq)
            running.deliveries += 1
            if not (state.begun or state.killed) and running.deliveries < self.policy.max_deliveries:
                self.enqueue(running)  # it was dead already when it was given this
            elif running.verdict in (None, "revoked"):
                running.verdict, running.reason = state.killed or "lost", reason  # type: ignore[assignment]
                self.enqueue(running)
            elif running.deliveries - running.rejections > 2 * self.policy.max_deliveries:
                running.reason = f"executors died while they settled it as {running.verdict}: {reason}"
                self._gone(running)
                self.dropped.append(running)
            else:
                self.enqueue(running)
        self._return_all(state)

    def _remove(self, executor: int) -> ExecutorState | None:
        state = self.executors.get(executor)
        if state is None:
            return None
        self.unblocked(executor, self.now)
        del self.executors[executor]
        lane = state.lane
        self._not_idle(state)
        self.unplace(state)
        lane.executors.discard(executor)
        lane.starting.discard(executor)
        lane.ready -= state.ready
        lane.top_up.pop(executor, None)
        lane.short_busy.pop(executor, None)
        lane.busy_cpus -= lane.request.get("CPU", 0)
        self.helpers[lane.lane.app].pop(executor, None)
        self._dirty[lane.lane.key] = None
        return state

    def _return_all(self, state: ExecutorState) -> None:
        for seq in list(state.outstanding):
            message = self._take_back(state, seq)
            assert message is not None
            self.enqueue(message)

    def _take_back(self, state: ExecutorState, seq: int) -> Message | None:
        message = state.outstanding.pop(seq, None)
        if message is not None:
            if message.verdict is None or message.held:
                state.long -= (
                    (not self.short(message.task) or bool(message.time_limit)) if message.verdict is None else 0
                )
                self.release(message)
            state.long = max(0, state.long) if state.outstanding else 0
            message.place = ""
        return message

    def _reported(self, executor: int, seq: int, now: float) -> Message | None:
        self.now = now
        state = self.executors.get(executor)
        if state is None:
            return None
        if state.blocked and state.running() is state.outstanding.get(seq):
            self.unblocked(executor, now)
        message = self._take_back(state, seq)
        if message is not None:
            state.progress += 1
            self._after_progress(state)
        return message

    def _after_progress(self, state: ExecutorState) -> None:
        lane, number = state.lane, state.id
        if not state.outstanding:
            lane.short_busy.pop(number, None)
            lane.top_up.pop(number, None)
            if state.stopping or lane.lane.one_shot or not state.ready:
                return
            if state.blocked:
                self.unblocked(number, self.now)
            if number not in lane.idle:
                self.now_idle(state)
            return
        if state.long or state.stopping or lane.lane.one_shot or state.recalling:
            return
        lane.short_busy[number] = None
        if number not in self.helpers[lane.lane.app]:
            self.can_help(state)
        slice_over = state.yielding and self.now - state.ready_at >= self.policy.slice_seconds
        left = sum(self.runtimes.get(m.task, (0, 0.0))[1] for m in state.outstanding.values())
        if left < self.policy.batch_seconds / 2 and len(state.outstanding) <= self.policy.max_batch and not slice_over:
            lane.top_up[number] = None
            self._dirty[lane.lane.key] = None

    def begun(self, executor: int, now: float) -> None:
        """Note that an executor that was idle has begun what it was given."""
        self.now = now
        state = self.executors.get(executor)
        if state is not None:
            state.begun = True

    def blocked(self, executor: int, now: float, awaited: Iterable[str] = ()) -> None:
        """Note that the message an executor runs waits for its subtasks: its CPUs are on loan meanwhile.

        Arguments:
            awaited: task ids; they go first, or ever more parents would be begun, each holding a process.
        """
        self.now = now
        state = self.executors.get(executor)
        if state is None or state.blocked or not state.outstanding:
            return
        state.blocked = True
        lane = state.lane
        cpus = lane.request.get("CPU", 0)
        lane.busy_cpus -= cpus
        node = self.nodes.get(state.node)
        if node is not None:
            self.nodes.add(node, {"CPU": cpus})
            node.lent += cpus
        message = state.running()
        if message is not None and message.held:
            # It counts for its own task still, or a recursion would know no bounds.
            for limit in self.streams[message.lane, message.queue, message.task].limits[:2]:
                limit.used -= 1
                if limit.parked:
                    self._roomy[limit.name] = None
        for task_id in awaited:
            child = self._ids.get(task_id)
            if child is not None and child.place == "stream":
                self.streams[child.lane, child.queue, child.task].promote(child)
        self.helpers[lane.lane.app].pop(executor, None)
        lane.short_busy.pop(executor, None)
        lane.top_up.pop(executor, None)
        if len(state.outstanding) > 1:
            self._recall(state)
        self._dirty[lane.lane.key] = None
        self.capacity_changed()

    def unblocked(self, executor: int, now: float) -> None:
        """Note that it goes on."""
        self.now = now
        state = self.executors.get(executor)
        if state is None or not state.blocked:
            return
        state.blocked = False
        cpus = state.lane.request.get("CPU", 0)
        state.lane.busy_cpus += cpus
        node = self.nodes.get(state.node)
        if node is not None:
            self.nodes.add(node, {"CPU": cpus}, -1)
            node.lent -= cpus
            if node.free.get("CPU", 0) < 0:
                for number in list(node.executors):
                    other = self.executors[number]
                    if other.borrowed and number in self._idle:
                        self.stop(other)
        message = state.running()
        if message is not None and message.held:
            for limit in self.streams[message.lane, message.queue, message.task].limits[:2]:
                limit.used += 1

    def _kill(self, state: ExecutorState, verdict: str, reason: str) -> None:
        if state.killed is None:
            state.killed = verdict
            self.log.append((self.now, "kill", state.id, reason))
            self.out.append(Kill(state.id, reason))

    def _recall(self, state: ExecutorState) -> None:
        if not state.recalling:
            state.recalling = True
            state.lane.top_up.pop(state.id, None)
            self.out.append(Recall(state.id))

    # -- nodes and limits ---------------------------------------------------------------------------------------

    def node_changed(self, node: str, resources: Mapping[str, float], now: float) -> None:
        """Note a live node and its total resources, in Ray's units."""
        self.now = now
        self.nodes.change(node, resources)
        self.capacity_changed()

    def node_removed(self, node: str, now: float) -> None:
        """Note that a node is gone; its executors are reported lost one by one."""
        self.now = now
        self.nodes.remove(node)
        self.capacity_changed()

    def node_external(self, node: str, used: Mapping[str, float]) -> None:
        """Note what others than this application use on a node."""
        self.nodes.set_external(node, used)
        self.capacity_changed()

    def make_room(self, amounts: Mapping[str, float], share: float, now: float) -> None:
        """Give executors up for another application: idle ones, and busy ones while this one has the larger share.

        Arguments:
            amounts: what the other lacks, in Ray's units.
            share: the CPUs it has.
        """
        self.now = now
        lacking = scaled(amounts)
        wanted = round(share * UNIT) + min(lacking.get("CPU", 0), UNIT)
        mine = sum(lane.busy_cpus for lane in self.lanes.values())
        for executor in sorted(
            self.executors.values(), key=lambda e: not (e.stopping or e.yielding or e.id in self._idle)
        ):
            request = executor.lane.request
            if executor.borrowed or not any(lacking.get(name, 0) > 0 for name in request):
                continue
            if not (executor.stopping or executor.yielding):
                if executor.id in self._idle:
                    self.stop(executor)
                elif executor.ready and not executor.blocked and mine - request.get("CPU", 0) >= wanted:
                    executor.yielding = True
                else:
                    continue
            mine -= request.get("CPU", 0)
            for name, amount in request.items():
                lacking[name] = lacking.get(name, 0) - amount

    def set_limit(self, name: str, maximum: int | None) -> None:
        """Set the most messages that run at once under a name: "app", "queue:<name>", "task:<name>"; None: no limit."""
        limit = self.limit(name)
        limit.maximum = maximum
        if limit.parked:
            self._roomy[name] = None

    def set_rate(self, task: str, per_second: float | None) -> None:
        """Set the cluster-wide rate limit of a task, in runs per second; None lifts it."""
        if per_second:
            self.rates.setdefault(task, Rate(per_second)).per_second = per_second
        else:
            self.rates.pop(task, None)
        for stream in self.streams.values():
            if stream.task == task and stream.parked:
                self.alarm(self.now, "rate", stream)

    # -- time ---------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Decision]:
        """Return what is to be done about all that has happened up to ``now``."""
        self.now = now
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:
            _, _, kind, subject, token = heapq.heappop(alarms)
            getattr(self, f"on_{kind}")(subject, token)
        self.schedule()
        out, self.out = self.out, []
        return out

    def on_eta(self, message: Message, token: Any) -> None:
        """A message's time has come."""
        if message.place == "eta":
            self.scheduled -= 1
            self.enqueue(message)

    def on_rate(self, stream: Any, token: Any) -> None:
        """A rate limit has a token again."""
        if stream.parked and not any(stream in limit.parked for limit in stream.limits):
            self.unpark(stream)

    def on_idle(self, executor: int, token: float) -> None:
        """An executor may have been idle for long enough."""
        state = self.executors.get(executor)
        if state is not None and executor in self._idle and state.idle_since == token:
            self.stop(state)

    def on_hungry(self, key: str, token: Any) -> None:
        """A lane that found nobody to make room is tried again."""
        if key in self._starved:
            self._hungry[key] = None

    def on_time_limit(self, executor: int, seq: int) -> None:
        """A hard time limit has passed."""
        state = self.executors.get(executor)
        if state is not None and seq in state.outstanding:
            self._kill(state, "timeout", "its hard time limit passed")

    def on_recall(self, executor: int, progress: int) -> None:
        """See whether an executor's first message still runs while others wait behind it."""
        state = self.executors.get(executor)
        if state is None:
            return
        state.recall_armed = False
        if len(state.outstanding) > 1:
            if state.progress == progress:
                self._recall(state)
            else:
                self.watch_head(state)

    def on_infeasible(self, key: str, token: Any) -> None:
        """Give up on the messages of a lane that no node can hold."""
        lane = self.lanes[key]
        if lane.infeasible_since is None or self.now - lane.infeasible_since < self.policy.infeasible_seconds:
            return
        if not len(self.nodes) or self.nodes.could_fit(lane.request):
            lane.infeasible_since = None
            self._hungry[key] = None
            return
        asked = {name: f"{amount:g}" for name, amount in lane.lane.request.items()}
        largest = {name: f"{amount:g}" for name, amount in self.nodes.largest(lane.request).items()}
        self._undeliverable(lane, f"no node has {asked}: the most any has is {largest}; ask for less, or add a node")
        # The next message makes a demand of its own; this one would be Ray's for ever.
        lane.infeasible_since = None
        for number in list(lane.starting):
            self._kill(self.executors[number], "undeliverable", "no node is large enough for it")

    def _undeliverable(self, lane: LaneState, reason: str) -> None:
        for queue in lane.rotation.queues.values():
            for stream in queue.streams:
                for message in stream.drain():
                    self.leave_stream(message)
                    message.verdict, message.reason = "undeliverable", reason
                    self.enqueue(message)
                self._offer(stream)

    def _drop_verdicts(self, app: str, reason: str) -> None:
        for key in list(self.verdict_lanes[app]):
            lane = self.lanes[key]
            while lane.verdicts:
                message = lane.verdicts.popleft()
                message.reason = f"{message.reason}; nor does an executor start that could record it: {reason}"
                self._gone(message)
                self.dropped.append(message)
        self.verdict_lanes[app].clear()

    # -- for observers ------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Message | None:
        """Return the latest message of a task id that is not finished."""
        return self._ids.get(task_id)

    def scheduled_messages(self) -> list[Message]:
        """Return the messages that wait for their time."""
        return [entry[3] for entry in self._alarms if entry[2] == "eta" and entry[3].place == "eta"]

    def revocations(self) -> tuple[list[str], dict[str, list[Any]]]:
        """Return the revoked ids and stamps that are remembered."""
        return list(self._revoked), dict(self._revoked_stamps)

    def stats(self) -> Stats:
        """Return counts of what waits and runs."""
        kinds = Counter(
            "starting" if not e.ready else "blocked" if e.blocked else "busy" if e.outstanding else "idle"
            for e in self.executors.values()
        )
        running = sum(1 for e in self.executors.values() if e.outstanding)
        return Stats(dict(self.waiting_by_queue), self.scheduled, running, dict(kinds))

    def why(self, task_id: str) -> str:
        """Say in one sentence why the message of that task id is where it is."""
        message = self._ids.get(task_id)
        if message is None:
            return "it is not here: it has ended, or was never submitted"
        if message.place == "eta":
            return f"it waits for its time, {(message.eta or 0) - self.now:.1f} s from now"
        if message.place == "verdict":
            return f"it is {message.verdict} and waits for an executor to record that"
        if message.place == "executor":
            state = self.executors[message.executor]
            where = f"executor {message.executor} on node {state.node}"
            if state.running() is message:
                return f"it runs on {where}{', waiting for its subtasks' if state.blocked else ''}"
            return f"it is next on {where}"
        stream = self.streams[message.lane, message.queue, message.task]
        for limit in stream.limits:
            if limit.room <= 0:
                return f"limit {limit.name!r} is reached: {limit.used} of {limit.maximum} run"
        if stream.parked:
            return (
                f"the rate limit of {message.task} has no token before {self.rates[message.task].next - self.now:.1f} s"
            )
        lane = self.lanes[message.lane]
        if lane.infeasible_since is not None:
            return f"no node is large enough for {dict(lane.lane.request)}"
        if lane.starting:
            return f"{len(lane.starting)} executors for {dict(lane.lane.request)} are starting"
        return f"no free resources for {dict(lane.lane.request)}; {stream.size} messages are in its stream"


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set)) else [value]
