"""Why a message is where it is, in one or two sentences for people."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from raycelery.scheduler.model import Counted, Message, in_words
from raycelery.scheduler.nodes import UNIT
from raycelery.scheduler.phases import MessagePhase

if TYPE_CHECKING:
    from raycelery.scheduler.executor import ExecutorState
    from raycelery.scheduler.gates import Limit
    from raycelery.scheduler.lanes import LaneState
    from raycelery.scheduler.parts import Parts

#: Messages that are named as those that have what another waits for.
_NAMED = 3
#: What bookkeeping is about, by settle reason.
_SETTLED = {
    "revoked": "it was revoked",
    "terminated": "it was terminated",
    "timeout": "it passed its hard time limit",
    "lost": "its executor died",
    "preempted": "its node was taken away",
    "infeasible": "no node is large enough for it",
    "undeliverable": "it can never run",
    "chord": "all parts of its chord are there, and the chord's body is to be called",
}


def explain(parts: Parts, message: Message, now: float, name_of: Callable[[str], str] = str) -> str:
    """Return why a message is where it is.

    Arguments:
        parts: of the scheduler.
        message: one that is not finished.
        now: seconds since the epoch.
        name_of: returns what people call a node, by its id.
    """
    return _Explaining(parts, now, name_of).explain(message)


def _about(seconds: float) -> str:
    if seconds < 1:
        return f"{max(0.0, seconds):.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 36_000 else _hours(seconds)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h" if seconds < 360_000 else f"{seconds / 86_400:.0f} days"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


class _Explaining:
    def __init__(self, parts: Parts, now: float, name_of: Callable[[str], str]) -> None:
        self._parts = parts
        self._now = now
        self._name_of = name_of

    def explain(self, message: Message) -> str:
        if message.phase is MessagePhase.SCHEDULED:
            at = datetime.fromtimestamp(message.eta or 0.0, timezone.utc)
            left = self._parts.waiting.due(message.eta or 0.0) - self._now
            return f"It is scheduled for {at:%Y-%m-%d %H:%M:%S} UTC, in {_about(left)}."
        if message.phase is MessagePhase.WAITING:
            return self._waiting(message)
        if message.phase is MessagePhase.UNSETTLED:
            return f"It is not run: {self._settle_reason(message)}. It waits for an executor to record that."
        executor = self._parts.executors.all[message.executor_id]
        if message.phase is MessagePhase.SETTLING:
            return f"It is being settled by {self._where(executor)}: {self._settle_reason(message)}."
        return self._assigned(message, executor)

    def _settle_reason(self, message: Message) -> str:
        said = _SETTLED.get(str(message.settle_reason), str(message.settle_reason))
        return f"{said} ({message.reason})" if message.reason else said

    # -- at an executor -----------------------------------------------------------------------------------------

    def _where(self, executor: ExecutorState) -> str:
        return f"executor {executor.id} on node {self._name_of(executor.node or '')}"

    def _assigned(self, message: Message, executor: ExecutorState) -> str:
        where = self._where(executor)
        if executor.killed is not None:
            return f"It is with {where}, which is being ended: {executor.killed[2]}."
        if executor.running() is message:
            said = f"It runs on {where}, since {_about(self._now - executor.head_since)}"
            return f"{said}, and waits for its subtasks." if executor.blocked else f"{said}."
        order = list(executor.outstanding).index(message.seq) + 1
        said = (
            f"It was assigned to {where} {_about(self._now - message.assigned)} ago, "
            f"and is number {order} of {len(executor.outstanding)} in its batch"
        )
        if message.settle_reason is not None:
            return f"{said}; {self._settle_reason(message)}, so it is called back."
        return f"{said}, which is called back." if executor.recalling else f"{said}."

    # -- waiting ------------------------------------------------------------------------------------------------

    def _waiting(self, message: Message) -> str:
        said = self._bounded(message) or self._unplaced(message, self._parts.lanes.active[message.lane])
        if message.deliveries or message.rejections:
            said += f" It was delivered {_count(message.deliveries + message.rejections, 'time')} before."
        return said

    def _bounded(self, message: Message) -> str | None:
        """Return which limit or rate a message waits for, and who has its places."""
        stream = self._parts.waiting.stream_of(message)
        app, queue, task = stream.limits
        for limit, what in (
            (app, "the application"),
            (queue, f"queue {stream.queue!r}"),
            (task, f"task {stream.task}"),
        ):
            if limit.maximum == 0:
                return f"It waits for {what} to be let run: its max_concurrency is 0."
            if limit.room <= 0:
                return (
                    f"It waits for the max_concurrency of {what}, which is {limit.maximum}: "
                    f"{_count(limit.used, 'message')} of it {'runs' if limit.used == 1 else 'run'}"
                    f"{self._holders(limit)}."
                )
        rate = self._parts.limits.rates.get(message.task)
        if rate is not None and rate.next > self._now:
            return (
                f"It waits for the rate limit of task {message.task}, which is {rate.per_second:g} per second: "
                f"the next one may begin in {_about(rate.next - self._now)}, and {self._ahead(message)}."
            )
        return None

    def _holders(self, limit: Limit) -> str:
        found = [
            (message.seq, message.id)
            for executor in self._parts.executors.all.values()
            for message in executor.outstanding.values()
            if message.counted is Counted.EVERYWHERE
            and limit.name in ("app", f"queue:{message.queue}", f"task:{message.task}")
        ]
        if not found:
            return ""
        more = len(found) - _NAMED
        named = [task_id for _, task_id in sorted(found)[:_NAMED]]
        return f" ({', '.join(named)}{f' and {more} more' if more > 0 else ''})"

    def _unplaced(self, message: Message, lane: LaneState) -> str:
        """Return why there is no executor for a message that no limit holds back."""
        asked, parts = in_words(lane.lane.request), self._parts
        if lane.infeasible_since is not None:
            most = in_words(parts.nodes.largest(lane.lane.request))
            left = lane.infeasible_since + parts.turn.policy.infeasible_seconds - self._now
            return (
                f"No node is large enough: it asks for {asked}, and the most that any has is {most}. "
                f"It has waited for such a node for {_about(self._now - lane.infeasible_since)}, "
                f"and fails in {_about(left)} unless one comes."
            )
        if lane.ahead and parts.autoscaler.known:
            nodes = parts.growth.nodes_asked
            since = self._now - min(parts.executors.all[executor_id].asked_at for executor_id in lane.ahead)
            usual = parts.autoscaler.seconds
            took = f", which took {_about(usual)} the last times" if usual is not None else ""
            return (
                f"It waits for a node: it asks for {asked}, and the autoscaler is adding {_count(nodes, 'node')} since "
                f"{_about(since)}{took}; {self._ahead(message)}."
            )
        if self._now < lane.not_before:
            return (
                f"It waits for an executor for {asked}: {_count(lane.failures, 'try').replace('trys', 'tries')} to "
                f"start one failed{self._last_failure()}; the next is in {_about(lane.not_before - self._now)}."
            )
        starting = [parts.executors.all[executor_id] for executor_id in lane.starting - lane.ahead]
        if starting:
            since = self._now - min(executor.started_at for executor in starting)
            many = "an executor" if len(starting) == 1 else f"{len(starting)} executors"
            return f"It waits for {many} for {asked}, being started since {_about(since)}; {self._ahead(message)}."
        if not len(parts.nodes):
            return "It waits for the cluster: no node is known yet."
        if parts.capacity.full():
            return (
                f"It waits for an executor: the application has as many as ray_max_executors lets it have "
                f"({parts.turn.policy.max_executors}), and all are busy; {self._ahead(message)}."
            )
        return (
            f"It waits for room: it asks for {asked}, and {self._free(lane)}{self._own(lane)}; {self._ahead(message)}."
        )

    def _last_failure(self) -> str:
        """Return why the latest executor ended that did not do so in order."""
        for entry in reversed(self._parts.turn.log):
            if entry[1] == "ended" and entry[3]:
                return f" ({entry[3]})"
        return ""

    def _free(self, lane: LaneState) -> str:
        """Return what nodes have free of what a lane asks for: the one that has most of it."""
        names = list(lane.request) or ["CPU"]
        best = max(
            self._parts.nodes,
            key=lambda node: [min(node.free.get(name, 0), lane.request.get(name, 0)) for name in names],
        )
        free = in_words({name: max(0, best.free.get(name, 0)) / UNIT for name in names})
        nodes = len(self._parts.nodes)
        return f"the node has {free} free" if nodes == 1 else f"the best of {nodes} nodes has {free} free"

    def _own(self, lane: LaneState) -> str:
        busy = len(lane.executors)
        return (
            f" while {_count(busy, 'executor')} for such messages {'is' if busy == 1 else 'are'} busy" if busy else ""
        )

    def _ahead(self, message: Message) -> str:
        """Return how many messages are ahead of one in its queue."""
        mine = (message.priority, message.seq)
        streams = self._parts.waiting.stream_of(message).home.streams.values()
        ahead = sum((other.priority, other.seq) < mine for stream in streams for other in stream.messages())
        if not ahead:
            return f"it is the first in queue {message.queue!r}"
        return f"{_count(ahead, 'message')} {'is' if ahead == 1 else 'are'} ahead of it in queue {message.queue!r}"
