"""The scheduler: a pure state machine. Events in, decisions out; no Ray, no clock, no thread, no I/O.

The caller tells what happened, with the time, and then asks :meth:`Scheduler.decide` what to do. ``log`` holds the
latest events and decisions, which tell why a message waited.

A layer per concern, each a class that derives from the one before: ``state`` (messages, limits), ``executing``
(executors), ``capacity`` (who may start executors), ``scheduling`` (who gets which message), ``preemption`` (what other
applications get), and here the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from raycelery.scheduler.lanes import ExecutorState
from raycelery.scheduler.limits import Rate
from raycelery.scheduler.model import Decision, Lane, Message, Policy
from raycelery.scheduler.nodes import Node
from raycelery.scheduler.preemption import Preemption

#: Tries to start an executor after which a lane is given up.
_TRIES = 2
#: The same where their processes were killed or crashed, which may have had a cause that passes.
_CRASHES = 6


class Scheduler(Preemption):
    """Queues, limits and lanes of one application.

    Arguments:
        policy: what may be tuned.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        super().__init__(policy or Policy())
        self._seq = 0

    @property
    def seq(self) -> int:
        """Number of the latest message."""
        return self._seq

    @property
    def wake_at(self) -> float | None:
        """When :meth:`decide` is to be called even if nothing happens, in seconds since the epoch."""
        return self.timers.next

    def decide(self, now: float) -> list[Decision]:
        """Return what is to be done about all that has happened up to ``now``."""
        self.now = now
        for kind, subject, token in self.timers.due(now):
            getattr(self, f"on_{kind}")(subject, token)
        self.schedule()
        out, self.out = self.out, []
        return out

    # -- messages -----------------------------------------------------------------------------------------------

    def add_lane(self, lane: Lane) -> None:
        """Make a lane known; again is harmless."""
        self.known_lanes.setdefault(lane.key, lane)

    def submit(self, message: Message, now: float, executor: int | None = None) -> None:
        """Take a message in.

        Arguments:
            message: a new one.
            now: seconds since the epoch.
            executor: the one that does it at once, within what it runs, and needs no telling; where it has ended, or
                is about to, the message waits for another.

        Raises:
            KeyError: its lane is not known.
        """
        self.now = now
        message.lane = self.known_lanes[message.lane].key
        self._seq += 1
        message.seq, message.submitted = self._seq, now
        self.pending += 1
        self.remember(message)
        if message.settle_reason is None and self.is_revoked(message):
            message.settle_reason = "revoked"
        state = None if executor is None else self.executors.get(executor)
        if state is not None and state.alive():
            self.give(state, [message])
        elif message.settle_reason is None and message.eta is not None and message.eta > now:
            message.place = "eta"
            self.scheduled += 1
            self.timers.add(message.eta, "eta", message)
        else:
            self.enqueue(message)

    def on_eta(self, message: Message, token: None) -> None:
        """Let a message run whose time has come; an timer."""
        self.scheduled -= 1
        self.enqueue(message)

    def finished(self, executor: int, seq: int, runtime: float | None, now: float) -> Message | None:
        """Note that an executor is done with a message, and return it; late and double reports are ignored.

        Arguments:
            runtime: seconds it ran; None where its task was not called.
        """
        message = self._reported(executor, seq, now)
        if message is None:
            return None
        if runtime is not None and not message.settling and not message.bridged:
            count, mean = self.runtimes.get(message.task, (0, 0.0))
            self.runtimes[message.task] = (count + 1, mean + (runtime - mean) / min(count + 1, 20))
        self.gone(message)
        return message

    def requeued(self, executor: int, seq: int, now: float) -> None:
        """Note that an executor gave a message back to be delivered again."""
        message = self._reported(executor, seq, now)
        if message is None:
            return
        if not message.settling:
            # The task's own wish: it goes behind the others, as a new message.
            self._seq += 1
            self.renumber(message, self._seq)
            message.rejections += 1
        elif message.settle_reason in ("lost", "timeout"):
            if message.deliveries >= self.policy.max_deliveries:
                message.settle_reason = "undeliverable"
                message.reason = (
                    f"it was delivered {message.deliveries} times and its executor died each time "
                    f"(ray_max_deliveries={self.policy.max_deliveries}); the last time: {message.reason}"
                )
            else:
                message.settle_reason, message.reason = None, ""
        if message.settle_reason is None and self.is_revoked(message):
            message.settle_reason = "revoked"
        self.enqueue(message)

    def recalled(self, executor: int, seqs: Sequence[int], now: float) -> None:
        """Note which messages an executor gave back without having begun them."""
        self.now = now
        state = self.executors.get(executor)
        if state is None:
            return
        state.recalling = False
        self._return(state, seqs)
        running = state.running()
        if running is not None and running.seq in state.doomed:
            self.kill(state, running.seq, "terminated", f"task {running.id} was terminated")
        state.doomed.clear()
        self.file(state)

    def _return(self, state: ExecutorState, seqs: Iterable[int]) -> None:
        for seq in seqs:
            message = self.take_from(state, seq)
            if message is not None:
                self.enqueue(message)

    def _reported(self, executor: int, seq: int, now: float) -> Message | None:
        self.now = now
        state = self.executors.get(executor)
        if state is None or seq not in state.outstanding:
            return None
        running = state.running()
        if running is not None and running.seq == seq:
            # It cannot have ended while it waited.
            self.unblocked(executor, now)
        state.begun = True
        message = self.take_from(state, seq)
        self.file(state)
        return message

    def purge(self, queue: str | None = None) -> list[Message]:
        """Remove and return the messages that wait, or wait for their time; all queues' or one's."""
        purged = []
        for stream in self.streams.values():
            if stream.size and (queue is None or stream.queue == queue):
                purged += self.drain(stream)
        later = [message for message in self.scheduled_messages() if queue is None or message.queue == queue]
        self.scheduled -= len(later)
        purged += later
        for message in purged:
            if message.bridged:
                self.enqueue(message)  # its broker has it
        purged = [message for message in purged if not message.bridged]
        for message in purged:
            self.gone(message)
        self.timers.cancelled(len(later))
        return purged

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
        if executor in lane.ahead:
            lane.ahead.discard(executor)
            lane.infeasible_since = None
        lane.ready += 1
        lane.failures = 0
        self.move(state, node)
        self.log.append((now, "ready", executor, node))
        self.file(state)
        self.dirty[lane.key] = None

    def executor_failed(self, executor: int, reason: str, now: float, crashed: bool = False) -> None:
        """Note that an executor ended before it was ready.

        Arguments:
            crashed: its process was killed or crashed; else it could not be started as it was asked for.
        """
        self._ended(executor, reason, now, crashed)

    def executor_stopped(self, executor: int, now: float) -> None:
        """Note that an executor has ended in order; what it had not begun goes elsewhere."""
        self._ended(executor, None, now)

    def executor_lost(self, executor: int, reason: str, now: float) -> None:
        """Note that an executor died: the message it was running is settled by Celery, the others go elsewhere."""
        self._ended(executor, reason, now, crashed=True)

    def _ended(self, executor: int, reason: str | None, now: float, crashed: bool = False) -> None:
        self.now = now
        state = self.remove(executor)
        if state is None:
            return
        self.log.append((now, "ended", executor, reason))
        if not state.ready:
            if state.killed is None:
                self._did_not_start(state, reason or "it ended before it was ready", _CRASHES if crashed else _TRIES)
        elif reason is not None:
            self._settle_running(state, reason)
        self._return(state, list(state.outstanding))
        self.dirty.update(self.settling_lanes.get(state.lane.lane.app, {}))

    def _settle_running(self, state: ExecutorState, reason: str) -> None:
        running = state.running()
        if running is None:
            return
        self.take_from(state, running.seq)
        if running.settling:
            running.settles += 1
            if running.settles > self.policy.max_deliveries:
                self._drop(running, f"executors died while they recorded it as {running.settle_reason}: {reason}")
                return
        else:
            running.deliveries += 1
            if state.killed is not None and state.killed[0] == running.seq:
                running.settle_reason, running.reason = state.killed[1:]
            elif state.begun or running.deliveries >= self.policy.max_deliveries:
                running.settle_reason, running.reason = "lost", reason
            # Else it was dead already when it was given this, which can run elsewhere.
        self.enqueue(running)

    def _did_not_start(self, state: ExecutorState, reason: str, tries: int) -> None:
        lane = state.lane
        if state.attempt == lane.tries:
            lane.tries += 1
            lane.failures += 1
            self.back_off(lane)
        if lane.failures < tries or lane.ready or lane.starting:
            return
        if lane.for_settlement and any(other.ready for other in self.lanes.values() if other.lane.app == lane.lane.app):
            return
        lane.failures, lane.not_before = 0, self.now
        if lane.for_settlement:
            self._drop_settling(lane.lane.app, reason)
        else:
            self.give_up(lane, "undeliverable", f"its executors do not start: {reason}")

    def _drop_settling(self, app: str, reason: str) -> None:
        for key in self.settling_lanes.pop(app, {}):
            lane = self.lanes[key]
            while lane.to_settle:
                message = lane.to_settle.popleft()
                self._drop(message, f"{message.reason}; and no executor that could record it starts: {reason}")

    def _drop(self, message: Message, reason: str) -> None:
        message.reason = reason
        self.gone(message)
        self.dropped.append(message)

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
        running = None if state is None else state.running()
        if state is None or running is None or state.blocked:
            return
        state.begun = True
        self.set_waiting(state, blocked=True)
        self.lend(running)
        for message in [message for task_id in awaited for message in self.find_all(task_id)]:
            if message.place == "stream":
                self.streams[message.lane, message.queue, message.task].promote(message)
        self.file(state)
        if len(state.outstanding) > 1:
            self.recall(state)

    def unblocked(self, executor: int, now: float) -> None:
        """Note that it goes on; the CPUs are its own again, though others may still use them."""
        self.now = now
        state = self.executors.get(executor)
        if state is None or not state.blocked:
            return
        self.set_waiting(state, blocked=False)
        running = state.running()
        if running is not None:
            self.take_back(running)
        node = self.node_of(state)
        if node is not None:
            for idle in [self.executors[number] for number in node.executors if number in self.idle]:
                if idle.borrowed and node.overdrawn():
                    self.rest(idle)
        self.file(state)

    # -- nodes and limits ---------------------------------------------------------------------------------------

    def node_changed(self, node: str, resources: Mapping[str, float], now: float) -> None:
        """Note a live node and its total resources, in Ray's units."""
        self.now = now
        changed = self.nodes.change(node, resources)
        if changed is None:
            return
        for state in [state for state in self.executors.values() if state.node == node]:
            self.move(state, node)
        self._displaced(changed)
        for lane in self.lanes.values():
            if lane.infeasible_since is not None and self.nodes.could_fit(lane.shape):
                lane.infeasible_since = None
                self.dirty[lane.key] = None

    def node_removed(self, node: str, now: float) -> None:
        """Note that a node is gone; its executors are reported lost one by one."""
        self.now = now
        removed = self.nodes.remove(node)
        if removed is None:
            return
        if removed.claim is not None:
            self.drop_claim(self.lanes[removed.claim], node)
        self._displaced(removed)

    def _displaced(self, node: Node) -> None:
        """Take note of executors that cannot start on a node any more: Ray looks for another, and there may be none."""
        gone = self.nodes.get(node.id) is not node
        for state in [self.executors[number] for number in node.executors]:
            if not state.ready and (gone or not node.could_fit(state.lane.request)):
                state.lane.ahead.add(state.id)
                self.dirty[state.lane.key] = None

    def set_limit(self, name: str, maximum: int | None) -> None:
        """Set the most messages that run at once under a name: "app", "queue:<name>", "task:<name>"; None: no limit."""
        limit = self.limit(name)
        limit.maximum = maximum
        if limit.parked:
            self.roomy[limit] = None

    def set_rate(self, task: str, per_second: float | None) -> None:
        """Set the cluster-wide rate limit of a task, in runs per second; None lifts it."""
        rate = self.rates.get(task)
        if rate is None:
            if per_second:
                self.rates[task] = Rate(task, per_second)
            return
        if rate.timer is not None:
            rate.timer = None
            self.timers.cancelled()
        if not per_second:
            del self.rates[task]
            self.roomy.pop(rate, None)
            self.unpark_all(rate)
            return
        rate.per_second = per_second
        if rate.parked:
            self.watch_rate(rate)
