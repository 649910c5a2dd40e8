"""Recounts what the brain keeps count of."""

from __future__ import annotations

from collections import Counter, defaultdict

from raycelery.scheduler.lanes import LaneState
from raycelery.scheduler.nodes import Node, Nodes
from raycelery.scheduler.scheduler import Brain


def audit(brain: Brain) -> None:
    """Check that the brain's indexes and counters agree with its messages and executors."""
    _executors(brain)
    _limits(brain)
    _streams(brain)
    for lane in brain.lanes.values():
        _lane(brain, lane)
    _nodes(brain)
    _settled(brain)


def _executors(brain: Brain) -> None:
    assert brain.slots == sum(not e.blocked and not e.lane.clerk for e in brain.executors.values())
    free = {e.id for e in brain.executors.values() if e.usable() and not e.outstanding and not e.spent}
    idle = {number for number in free if not brain.executors[number].resting}
    assert set(brain.idle) == idle
    assert {number for lane in brain.lanes.values() for number in lane.resting} == free - idle
    helpers: dict[str, set[int]] = defaultdict(set)
    for executor in brain.executors.values():
        assert brain.lanes[executor.lane.key] is executor.lane
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
    for app in helpers.keys() | brain.helpers.keys() | brain.crowded.keys():
        assert not brain.helpers[app].keys() & brain.crowded[app].keys()
        assert brain.helpers[app].keys() | brain.crowded[app].keys() == helpers[app]


def _limits(brain: Brain) -> None:
    used: Counter[str] = Counter()
    for executor in brain.executors.values():
        for message in executor.outstanding.values():
            if message.held:
                used[f"task:{message.task}"] += 1
                if message.held == 1:
                    used["app"] += 1
                    used[f"queue:{message.queue}"] += 1
    for name, limit in brain.limits.items():
        assert limit.used == used[name], name


def _streams(brain: Brain) -> None:
    waiting: Counter[str] = Counter()
    for key, stream in brain.streams.items():
        live = list(stream.messages())
        assert len(live) == len(set(map(id, live))) == stream.size
        assert all(m.verdict is None and (m.lane, m.queue, m.task) == key for m in live)
        waiting[stream.queue] += stream.size
        if stream.parked is not None:
            assert stream in stream.parked.parked
        if stream.home.parked is not None:
            assert stream.home in stream.home.parked.parked
            assert not stream.home.rotating
        elif stream.size and stream.parked is None:
            assert stream.home.rotating, "it would never be served"
            assert stream.home in stream.home.rotation.ready
    assert +waiting == brain.waiting_by_queue


def _lane(brain: Brain, lane: LaneState) -> None:
    members = [e for e in brain.executors.values() if e.lane is lane]
    assert list(lane.executors) == [e.id for e in members]
    assert lane.starting == {e.id for e in members if not e.ready}
    assert lane.ahead <= lane.starting
    assert lane.ready == sum(e.ready for e in members)
    counting = [e for e in members if not (e.blocked or e.resting or e.paused)]
    assert lane.share == lane.weight * len(counting)
    assert lane.leaving == lane.weight * sum(e.leaving for e in counting)
    assert set(lane.idle) == {e.id for e in members if e.id in brain.idle}
    assert lane.waiting == sum(s.size for q in lane.rotation.queues.values() for s in q.streams.values())
    assert all(m.place == "verdict" for m in lane.verdicts)
    if lane.verdicts:
        assert lane.key in brain.verdict_lanes[lane.lane.app]
    assert set(lane.asked) == {e.id for e in brain.executors.values() if e.yielding == lane.key}
    for node_id, count in lane.claims.items():
        assert count > 0
        node = brain.nodes.get(node_id)
        assert node is None or node.claim == lane.key


def _nodes(brain: Brain) -> None:
    assert brain.nodes.total_cpus == sum(node.total.get("CPU", 0) for node in brain.nodes)
    for node in brain.nodes:
        _node(brain, node)
        assert _in_bucket(brain.nodes, node) == (node.claim is None)
        if node.claim is not None:
            assert node.id in brain.lanes[node.claim].claims


def _node(brain: Brain, node: Node) -> None:
    free = Counter(node.total)
    lent = borrowed = 0
    for number in node.executors:
        executor = brain.executors[number]
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


def _settled(brain: Brain) -> None:
    """Check what holds once the brain has decided."""
    if brain.dirty or brain.hungry or brain.roomy or brain.room_changed():
        return
    for limit in brain.limits.values():
        assert not limit.parked or limit.room <= 0, f"{limit.name} has room that nobody uses"
    for task, rate in brain.rates.items():
        assert not rate.parked or rate.alarm is not None, task
    for lane in brain.lanes.values():
        if lane.waiting and lane.idle:
            assert brain.next_stream(lane) is None, "an executor is idle though something could run"
        if lane.waiting and lane.key not in brain.starved and brain.next_stream(lane) is not None:
            assert lane.starting or lane.quick, "nobody will ever run it"
    assert not brain.starved or brain._retrying
    assert len(brain.alarms) <= 2 * _alarms(brain) + 600


def _alarms(brain: Brain) -> int:
    limited = sum(bool(m.time_limit) for e in brain.executors.values() for m in e.outstanding.values())
    return brain.scheduled + limited + 2 * len(brain.executors) + 2 * len(brain.lanes) + len(brain.rates)
