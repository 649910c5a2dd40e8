"""Recounts what the scheduler keeps count of: its indexes and counters must agree with its messages and executors."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from raycelery.scheduler.model import Counted
from raycelery.scheduler.phases import ExecutorPhase, MessagePhase

if TYPE_CHECKING:
    from raycelery.scheduler.executor import ExecutorState
    from raycelery.scheduler.lanes import LaneState
    from raycelery.scheduler.nodes import Node
    from raycelery.scheduler.parts import Parts


class BooksDisagree(AssertionError):
    """Two parts of the scheduler say different things about the same."""


def validate(parts: Parts) -> None:
    """Check that all books agree with each other.

    Raises:
        BooksDisagree: they do not; it says which.
    """
    _messages(parts)
    for executor in parts.executors.all.values():
        _executor(parts, executor)
    _helpers(parts)
    _limits(parts)
    _streams(parts)
    for lane in parts.lanes.active.values():
        _lane(parts, lane)
    _nodes(parts)
    _leases(parts)
    _decided(parts)


def _agree(holds: object, what: str, *about: object) -> None:
    if not holds:
        raise BooksDisagree(" ".join([what, *map(str, about)]))


def _messages(parts: Parts) -> None:
    """Every message is in the one place that its phase names."""
    places: dict[int, MessagePhase] = {}

    def at(seq: int, phase: MessagePhase) -> None:
        _agree(seq not in places, "a message is in two places:", seq)
        places[seq] = phase

    for stream in parts.waiting.streams.values():
        for message in stream.messages():
            at(message.seq, MessagePhase.WAITING)
    for message in parts.waiting.scheduled_messages():
        at(message.seq, MessagePhase.SCHEDULED)
    for lane in parts.lanes.active.values():
        for message in lane.to_settle:
            at(message.seq, MessagePhase.UNSETTLED)
    for executor in parts.executors.all.values():
        for seq, message in executor.outstanding.items():
            _agree(message.executor_id == executor.id, "a message names another executor:", seq)
            at(seq, message.phase)
            _agree(message.at_executor, "an executor has a message that is not its own:", seq)
    known = {message.seq: message.phase for message in parts.messages.all()}
    _agree(places == known, "messages are not where they say:", places.items() ^ known.items())
    _agree(parts.messages.pending == len(known), "unfinished messages are miscounted")
    _agree(
        parts.waiting.scheduled == sum(phase is MessagePhase.SCHEDULED for phase in known.values()),
        "scheduled messages are miscounted",
    )


def _executor(parts: Parts, executor: ExecutorState) -> None:
    about, lane, phase = executor.id, executor.lane, executor.phase
    _agree(parts.lanes.active[lane.key] is lane, "an executor's lane was forgotten:", about)
    if phase in (ExecutorPhase.STARTING, ExecutorPhase.IDLE, ExecutorPhase.SPENT):
        _agree(not executor.outstanding, "an executor has messages though it is", phase.value, about)
    if phase is ExecutorPhase.BUSY:
        _agree(executor.outstanding, "a busy executor has nothing:", about)
    _agree(phase is not ExecutorPhase.ENDED, "an executor has ended and is kept:", about)
    _agree((phase is ExecutorPhase.KILLED) == (executor.killed is not None), "it is not known why it is killed:", about)
    if phase not in (ExecutorPhase.STARTING, ExecutorPhase.KILLED):
        _agree(executor.ready, "an executor at work is not ready:", about)
    if phase in (ExecutorPhase.STOPPING, ExecutorPhase.KILLED):
        _agree(executor.leaving, "an executor that ends is not leaving:", about)
    free = executor.free()
    _agree((about in parts.executors.idle) == (free and not executor.resting), "idle executors are misfiled:", about)
    _agree((about in lane.resting) == (free and executor.resting), "resting executors are misfiled:", about)
    _agree(executor.backfilled or not executor.resting, "an executor rests that has CPUs of its own:", about)
    _agree((about in lane.quick) == (_quick(executor)), "executors with short work are misfiled:", about)
    if about in lane.top_up:
        _agree(_quick(executor) and not executor.recalling, "it is to be given more, and cannot take it:", about)
    _agree(executor.long <= executor.outstanding.keys(), "a message runs long that is not there:", about)


def _quick(executor: ExecutorState) -> bool:
    return (
        executor.usable()
        and bool(executor.outstanding)
        and not (executor.long or executor.blocked or executor.lane.lane.one_shot)
    )


def _helpers(parts: Parts) -> None:
    expected: defaultdict[str, set[int]] = defaultdict(set)
    slots = 0
    for executor in parts.executors.all.values():
        slots += not (executor.blocked or executor.ahead or executor.lane.for_settlement)
        if (executor.id in parts.executors.idle or _quick(executor)) and not executor.lane.lane.one_shot:
            expected[executor.lane.lane.app].add(executor.id)
    _agree(parts.occupancy.slots == slots, "executors are miscounted")
    free, crowded = parts.helpers.free, parts.helpers.crowded
    for app in expected.keys() | free.keys() | crowded.keys():
        now, later = set(free.get(app, ())), set(crowded.get(app, ()))
        _agree(not now & later, "an executor can do bookkeeping now, and only later:", now & later)
        _agree(now | later == expected[app], "executors for bookkeeping are misfiled:", (now | later) ^ expected[app])


def _limits(parts: Parts) -> None:
    used: Counter[str] = Counter()
    for executor in parts.executors.all.values():
        for message in executor.outstanding.values():
            if message.counted is not Counted.NOWHERE:
                used[f"task:{message.task}"] += 1
            if message.counted is Counted.EVERYWHERE:
                used["app"] += 1
                used[f"queue:{message.queue}"] += 1
    for name, limit in parts.limits.limits.items():
        _agree(limit.used == used[name], "a limit is miscounted:", name, limit.used, used[name])


def _streams(parts: Parts) -> None:
    waiting: Counter[str] = Counter()
    for key, stream in parts.waiting.streams.items():
        live = list(stream.messages())
        _agree(len(live) == len(set(map(id, live))) == stream.size, "waiting messages are miscounted:", key)
        for message in live:
            _agree(message.settle_reason is None, "a message waits to be run and is to be settled:", message.id)
            _agree((message.lane, message.queue, message.task) == key, "a message is in another's stream:", message.id)
        waiting[stream.queue] += stream.size
        home = stream.home
        if stream.parked is not None:
            _agree(stream in stream.parked.parked, "a stream is parked, and will not be found:", key)
        if home.parked is not None:
            _agree(home in home.parked.parked and not home.rotating, "a queue is parked, and will not be found:", key)
        elif stream.size and stream.parked is None:
            _agree(home.rotating and home in home.rotation.ready, "a stream would never be served:", key)
    _agree(+waiting == parts.waiting.by_queue, "queues are miscounted:", waiting, parts.waiting.by_queue)


def _lane(parts: Parts, lane: LaneState) -> None:
    about = lane.key
    members = [e for e in parts.executors.all.values() if e.lane is lane]
    _agree(list(lane.executors) == [e.id for e in members], "a lane's executors are not its own:", about)
    _agree(lane.starting == {e.id for e in members if not e.ready}, "executors that start are misfiled:", about)
    _agree(lane.ahead <= lane.starting, "it was started ahead of nodes, and does not start:", about)
    _agree(lane.ahead == {e.id for e in members if e.ahead}, "executors ahead of nodes are misfiled:", about)
    _agree(lane.ready == sum(e.ready for e in members), "executors that have started are miscounted:", about)
    counting = [e for e in members if not (e.blocked or e.resting or e.paused or e.ahead)]
    _agree(lane.share == lane.weight * len(counting), "a share is miscounted:", about)
    _agree(lane.leaving == lane.weight * sum(e.leaving for e in counting), "what leaves is miscounted:", about)
    _agree(set(lane.idle) == {e.id for e in members if e.id in parts.executors.idle}, "idle ones are misfiled:", about)
    sizes = (stream.size for queue in lane.rotation.queues.values() for stream in queue.streams.values())
    _agree(lane.waiting == sum(sizes), "a lane's messages are miscounted:", about)
    if lane.to_settle:
        _agree(lane.key in parts.helpers.lanes[lane.lane.app], "bookkeeping would never be done:", about)
    asked = {e.id for e in parts.executors.all.values() if e.yielding == lane.key}
    _agree(set(lane.asked) == asked, "executors that make room are misfiled:", about)
    for node_id, count in lane.claims.items():
        node = parts.nodes.get(node_id)
        _agree(count > 0 and (node is None or node.claim == lane.key), "a claim is unknown to its node:", about)


def _nodes(parts: Parts) -> None:
    total = sum(node.total.get("CPU", 0) for node in parts.nodes)
    _agree(parts.nodes.total_cpus == total, "the cluster's CPUs are miscounted")
    for node in parts.nodes:
        _node(parts, node)
        _agree(parts.nodes.indexed(node) == node.open, "a node is misfiled:", node.id)
        if node.claim is not None:
            _agree(node.id in parts.lanes.active[node.claim].claims, "a node is kept clear for nobody:", node.id)


def _node(parts: Parts, node: Node) -> None:
    free = Counter(node.total)
    vacated = backfilled = 0
    for executor_id in node.executors:
        executor = parts.executors.all[executor_id]
        _agree(executor.node == node.id, "an executor is on two nodes:", executor_id)
        free.subtract(executor.lane.request)
        if executor.vacates():
            free["CPU"] += executor.cpus
            vacated += executor.cpus
        free["CPU"] += executor.cpus * executor.resting
        backfilled += executor.cpus * (executor.backfilled and not executor.resting)
    known, counted = ({k: v for k, v in amounts.items() if v} for amounts in (node.free, free))
    _agree(known == counted, "what a node has free is miscounted:", node.id, known, counted)
    _agree((node.vacated, node.backfilled) == (vacated, backfilled), "a node's waiters are miscounted:", node.id)


def _leases(parts: Parts) -> None:
    executors = parts.executors.all
    for given in parts.leases_given.given.values():
        for executor_id in given.executors:
            if executor_id in executors:
                _agree(executors[executor_id].paused, "an executor is leased to others, and not paused:", executor_id)
    for taken in parts.leases_taken.taken.values():
        for executor_id in taken.executors:
            _agree(executors[executor_id].leased, "an executor uses a lease without being leased:", executor_id)
    unconnected = [executors[executor_id].started_at for executor_id in parts.executors.unconnected]
    _agree(unconnected == sorted(unconnected), "executors that Ray is to start are misfiled")


def _decided(parts: Parts) -> None:
    """Check what holds once the scheduler has decided."""
    turn, executors = parts.turn, parts.executors.all
    if turn.changed or turn.hungry or turn.roomy or parts.capacity.room_changed():
        return
    for limit in parts.limits.limits.values():
        _agree(not limit.parked or limit.room <= 0, "a limit has room that nobody uses:", limit.name)
    for task, rate in parts.limits.rates.items():
        _agree(not rate.parked or rate.timer is not None, "a rate is not looked at:", task)
    starved = parts.capacity.starved
    for lane in parts.lanes.active.values():
        if lane.waiting and lane.idle:
            _agree(parts.waiting.next_stream(lane) is None, "an executor is idle though it could run", lane.key)
        if lane.waiting and lane.key not in starved and parts.waiting.next_stream(lane) is not None:
            _agree(lane.starting or lane.quick, "nobody will ever run what waits in", lane.key)
    _agree(not starved or parts.capacity.retry_armed, "lanes that starve are not looked at again")
    limited = sum(bool(message.time_limit) for e in executors.values() for message in e.outstanding.values())
    most = (
        1 + parts.waiting.scheduled + limited + 2 * (len(executors) + len(parts.lanes.active)) + len(parts.limits.rates)
    )
    _agree(len(parts.timers) <= 2 * most + 600, "timers pile up:", len(parts.timers))
