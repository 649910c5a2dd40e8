"""Recounts what the scheduler keeps count of."""

from __future__ import annotations

from collections import Counter, defaultdict

from raycelery.scheduler.lanes import LaneState
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.scheduler import Scheduler


def audit(scheduler: Scheduler) -> None:
    """Check that the scheduler's indexes and counters agree with its messages and executors."""
    _executors(scheduler)
    _limits(scheduler)
    _streams(scheduler)
    for lane in scheduler.lanes.values():
        _lane(scheduler, lane)
    _nodes(scheduler)
    _settled(scheduler)


def _executors(scheduler: Scheduler) -> None:
    assert scheduler.slots == sum(not e.blocked and not e.lane.for_settlement for e in scheduler.executors.values())
    free = {e.id for e in scheduler.executors.values() if e.usable() and not e.outstanding and not e.spent}
    idle = {number for number in free if not scheduler.executors[number].resting}
    assert set(scheduler.idle) == idle
    assert {number for lane in scheduler.lanes.values() for number in lane.resting} == free - idle
    helpers: dict[str, set[int]] = defaultdict(set)
    for executor in scheduler.executors.values():
        assert scheduler.lanes[executor.lane.key] is executor.lane
        one_shot = executor.lane.lane.one_shot
        quick = executor.usable() and bool(executor.outstanding) and not executor.long and not executor.blocked
        assert (executor.id in executor.lane.quick) == (quick and not one_shot)
        if executor.id in executor.lane.top_up:
            assert quick
            assert not executor.recalling
        if (executor.id in idle or quick) and not one_shot:
            helpers[executor.lane.lane.app].add(executor.id)
        assert executor.long <= executor.outstanding.keys()
        if executor.killed is not None or executor.stopping:
            assert executor.leaving
    for app in helpers.keys() | scheduler.helpers.keys() | scheduler.crowded.keys():
        assert not scheduler.helpers[app].keys() & scheduler.crowded[app].keys()
        assert scheduler.helpers[app].keys() | scheduler.crowded[app].keys() == helpers[app]


def _limits(scheduler: Scheduler) -> None:
    used: Counter[str] = Counter()
    for executor in scheduler.executors.values():
        for message in executor.outstanding.values():
            if message.held:
                used[f"task:{message.task}"] += 1
                if message.held == 1:
                    used["app"] += 1
                    used[f"queue:{message.queue}"] += 1
    for name, limit in scheduler.limits.items():
        assert limit.used == used[name], name


def _streams(scheduler: Scheduler) -> None:
    waiting: Counter[str] = Counter()
    for key, stream in scheduler.streams.items():
        live = list(stream.messages())
        assert len(live) == len(set(map(id, live))) == stream.size
        assert all(m.settle_reason is None and (m.lane, m.queue, m.task) == key for m in live)
        waiting[stream.queue] += stream.size
        if stream.parked is not None:
            assert stream in stream.parked.parked
        if stream.home.parked is not None:
            assert stream.home in stream.home.parked.parked
            assert not stream.home.rotating
        elif stream.size and stream.parked is None:
            assert stream.home.rotating, "it would never be served"
            assert stream.home in stream.home.rotation.ready
    assert +waiting == scheduler.waiting_by_queue


def _lane(scheduler: Scheduler, lane: LaneState) -> None:
    members = [e for e in scheduler.executors.values() if e.lane is lane]
    assert list(lane.executors) == [e.id for e in members]
    assert lane.starting == {e.id for e in members if not e.ready}
    assert lane.ahead <= lane.starting
    assert lane.ready == sum(e.ready for e in members)
    counting = [e for e in members if not (e.blocked or e.resting or e.paused)]
    assert lane.share == lane.weight * len(counting)
    assert lane.leaving == lane.weight * sum(e.leaving for e in counting)
    assert set(lane.idle) == {e.id for e in members if e.id in scheduler.idle}
    assert lane.waiting == sum(s.size for q in lane.rotation.queues.values() for s in q.streams.values())
    assert all(m.place == "settle_reason" for m in lane.to_settle)
    if lane.to_settle:
        assert lane.key in scheduler.settling_lanes[lane.lane.app]
    assert set(lane.asked) == {e.id for e in scheduler.executors.values() if e.yielding == lane.key}
    for node_id, count in lane.claims.items():
        assert count > 0
        node = scheduler.nodes.get(node_id)
        assert node is None or node.claim == lane.key


def _nodes(scheduler: Scheduler) -> None:
    assert scheduler.nodes.total_cpus == sum(node.total.get("CPU", 0) for node in scheduler.nodes)
    for node in scheduler.nodes:
        _node(scheduler, node)
        assert _in_bucket(scheduler.nodes, node) == (node.claim is None)
        if node.claim is not None:
            assert node.id in scheduler.lanes[node.claim].claims


def _node(scheduler: Scheduler, node: Node) -> None:
    free = Counter(node.total)
    lent = borrowed = 0
    for number in node.executors:
        executor = scheduler.executors[number]
        assert executor.node == node.id
        free.subtract(executor.lane.request)
        cpus = executor.lane.request.get("CPU", 0)
        if executor.lends():
            free["CPU"] += cpus
            lent += cpus
        free["CPU"] += cpus * executor.resting
        borrowed += cpus * (executor.borrowed and not executor.resting)
        assert executor.borrowed or not executor.resting
    assert {k: v for k, v in free.items() if v} == {k: v for k, v in node.free.items() if v}
    assert (node.lent, node.borrowed) == (lent, borrowed)


def _in_bucket(nodes: Nodes, node: Node) -> bool:
    found = [free for free, bucket in nodes._buckets.items() if node.id in bucket]
    assert found in ([], [node.free.get("CPU", 0)])
    return bool(found)


def _settled(scheduler: Scheduler) -> None:
    """Check what holds once the scheduler has decided."""
    if scheduler.dirty or scheduler.hungry or scheduler.roomy or scheduler.room_changed():
        return
    for limit in scheduler.limits.values():
        assert not limit.parked or limit.room <= 0, f"{limit.name} has room that nobody uses"
    for task, rate in scheduler.rates.items():
        assert not rate.parked or rate.timer is not None, task
    for lane in scheduler.lanes.values():
        if lane.waiting and lane.idle:
            assert scheduler.next_stream(lane) is None, "an executor is idle though something could run"
        if lane.waiting and lane.key not in scheduler.starved and scheduler.next_stream(lane) is not None:
            assert lane.starting or lane.quick, "nobody will ever run it"
    assert not scheduler.starved or scheduler._retrying
    assert len(scheduler.timers) <= 2 * _timers(scheduler) + 600


def _timers(scheduler: Scheduler) -> int:
    limited = sum(bool(m.time_limit) for e in scheduler.executors.values() for m in e.outstanding.values())
    return (
        scheduler.scheduled + limited + 2 * len(scheduler.executors) + 2 * len(scheduler.lanes) + len(scheduler.rates)
    )
