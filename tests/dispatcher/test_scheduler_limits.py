"""Limits and rates of the scheduler."""

from __future__ import annotations

import pytest

from raycelery.scheduler.events import Revoke, SetLimit
from tests.dispatcher.scheduler_cluster import Cluster, ids


@pytest.mark.parametrize("name", ["app", "queue:celery", "task:task"])
def test_a_limit_is_never_exceeded(name: str) -> None:
    cluster = Cluster(8)
    cluster.scheduler.handle(SetLimit(name, 3), cluster.now)
    cluster.submit_many(20)
    cluster.turn()
    assert len(cluster.running()) == 3
    cluster.run_all()


def test_no_more_executors_start_than_a_limit_lets_run() -> None:
    cluster = Cluster(16)
    cluster.scheduler.handle(SetLimit("app", 2), cluster.now)
    for task in ("a", "b", "c"):
        cluster.submit_many(5, task)
    cluster.turn()
    assert len(cluster.workers) == 2


def test_priority_holds_under_a_limit_of_the_application() -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit("app", 1), cluster.now)
    first = cluster.submit("a", priority=5)
    cluster.turn()
    late = [cluster.submit("a", priority=5), cluster.submit("b", priority=0), cluster.submit("b", priority=9)]
    urgent = cluster.submit("c", priority=0)
    cluster.run_all()
    assert cluster.begun == ids([first, late[1], urgent, late[0], late[2]])


def test_priority_holds_in_a_limited_queue_that_spans_lanes() -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit("queue:celery", 1), cluster.now)
    wide = cluster.lane(2)
    for lane in (cluster.lane(), wide):
        cluster.submit(lane=lane)
        cluster.run_all()
    first = cluster.submit(priority=9)
    cluster.turn()
    later = [cluster.submit(lane=wide, priority=p) for p in (3, 1)] + [cluster.submit(priority=p) for p in (4, 0, 2)]
    cluster.begun.clear()
    cluster.run_all()
    assert cluster.begun == ids(sorted(later, key=lambda message: message.priority))
    assert cluster.how(first) == "done"


@pytest.mark.parametrize("bound", ["app", "queue:celery", "task:task", "rate"])
def test_a_lane_without_executors_gets_its_turn_though_others_are_quicker_to_use_the_room(bound: str) -> None:
    cluster = Cluster(4, starts=False)
    if bound == "rate":
        cluster.set_rate("task", 1.0)
    else:
        cluster.scheduler.handle(SetLimit(bound, 1), cluster.now)
    cluster.submit_many(50)
    cluster.turn()
    cluster.ready(next(iter(cluster.workers.values())))
    late = cluster.submit(lane=cluster.lane(2), priority=-1)
    for _ in range(10):
        for message in [m for m in cluster.live.values() if cluster.is_running(m)]:
            cluster.finish(message)
        cluster.pass_time(1.0)
        for worker in [worker for worker in cluster.workers.values() if not worker.ready]:
            cluster.ready(worker)
    assert cluster.how(late) == "done"


def test_one_tasks_limit_does_not_hold_up_the_others_of_its_queue() -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit("task:rare", 1), cluster.now)
    cluster.submit_many(5, "rare")
    others = cluster.submit_many(3, "other")
    cluster.turn()
    assert all(cluster.is_running(message) for message in others)


def test_room_that_one_lane_cannot_use_goes_to_another() -> None:
    cluster = Cluster(4, {"GPU": 1, "CPU": 1})
    cluster.scheduler.handle(SetLimit("app", 2), cluster.now)
    gpu = cluster.lane(1, GPU=1)
    holder, blocker = cluster.submit(lane=gpu), cluster.submit()
    cluster.turn()
    stuck = cluster.submit(lane=gpu)
    cluster.turn()
    free = cluster.submit()
    cluster.turn()
    cluster.finish(blocker)
    assert cluster.is_running(free), "the GPU is taken, so the room of the limit is not for its lane"
    cluster.finish(holder)
    cluster.pass_time(5)
    assert cluster.is_running(stuck)


def test_a_limit_that_is_raised_takes_effect_at_once() -> None:
    cluster = Cluster(8)
    cluster.scheduler.handle(SetLimit("task:task", 0), cluster.now)
    cluster.submit_many(6)
    cluster.turn()
    assert cluster.running() == []
    for maximum, running in ((2, 2), (4, 4), (None, 6)):
        cluster.scheduler.handle(SetLimit("task:task", maximum), cluster.now)
        cluster.turn()
        assert len(cluster.running()) == running


def test_a_limit_that_is_lowered_lets_what_runs_end() -> None:
    cluster = Cluster(8)
    messages = cluster.submit_many(6)
    cluster.turn()
    first = messages[:4]
    cluster.scheduler.handle(SetLimit("app", 2), cluster.now)
    more = cluster.submit_many(3)
    for message in first:
        cluster.finish(message)
    assert cluster.running() == ids(messages[4:])
    cluster.finish(messages[4])
    assert cluster.is_running(more[0])


def test_a_rate_spaces_runs() -> None:
    cluster = Cluster(4)
    cluster.set_rate("task", 2.0)
    cluster.submit_many(4)
    cluster.turn()
    assert len(cluster.begun) == 1
    cluster.pass_time(0.49)
    assert len(cluster.begun) == 1
    cluster.pass_time(0.02)
    assert len(cluster.begun) == 2
    cluster.pass_time(1.0)
    assert len(cluster.begun) == 4


def test_a_rate_counts_across_queues_and_lanes_and_serves_them_in_turn() -> None:
    cluster = Cluster(8)
    cluster.set_rate("task", 1.0)
    lanes = [cluster.lane(1), cluster.lane(2)]
    for lane in lanes:
        for queue in ("a", "b"):
            cluster.submit_many(3, queue=queue, lane=lane)
    served = set()
    for _ in range(4):
        before = set(cluster.begun)
        cluster.pass_time(1.0) if before else cluster.turn()
        begun = [m for m in cluster.live.values() if m.id in set(cluster.begun) - before]
        assert len(begun) == 1
        served.add((begun[0].queue, begun[0].lane))
    assert len(served) == 4


def test_a_rate_does_not_start_an_executor_for_each_waiting_message() -> None:
    cluster = Cluster(64)
    cluster.set_rate("task", 10.0)
    cluster.submit_many(500)
    for _ in range(20):
        cluster.pass_time(0.1)
        for message in [m for m in cluster.live.values() if cluster.is_running(m)]:
            cluster.finish(message)
    assert len(cluster.workers) == 1


def test_a_raised_rate_does_not_wait_for_the_old_one() -> None:
    cluster = Cluster(4)
    cluster.set_rate("task", 1 / 86400)
    cluster.submit_many(3)
    cluster.pass_time(1.0)
    assert len(cluster.begun) == 1
    cluster.set_rate("task", 10.0)
    cluster.pass_time(0.3)
    assert len(cluster.begun) == 3


def test_a_lifted_rate_lets_all_run() -> None:
    cluster = Cluster(8)
    cluster.set_rate("task", 0.001)
    cluster.submit_many(6)
    cluster.turn()
    cluster.set_rate("task", None)
    cluster.turn()
    assert len(cluster.begun) == 6


def test_the_scheduler_wants_to_be_woken_for_a_rate() -> None:
    cluster = Cluster(4)
    cluster.set_rate("task", 0.5)
    cluster.submit_many(2)
    cluster.turn()
    assert cluster.scheduler.wake_at is not None
    assert cluster.scheduler.wake_at <= cluster.now + 2.0


def test_a_parent_that_waits_gives_its_place_in_application_and_queue_back() -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit("app", 1), cluster.now)
    cluster.scheduler.handle(SetLimit("queue:celery", 1), cluster.now)
    parent = cluster.submit("parent")
    cluster.turn()
    child = cluster.submit("child")
    cluster.block(parent)
    assert cluster.is_running(child)
    cluster.unblock(parent)
    assert cluster.scheduler.view.limits["app"].used == 2, "it goes on though the limit is exceeded"
    waiting = cluster.submit("child")
    cluster.finish(child)
    assert not cluster.is_running(waiting)
    cluster.finish(parent)
    assert cluster.is_running(waiting)


def test_a_parent_that_waits_keeps_its_place_in_its_tasks_limit() -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit("task:recursion", 2), cluster.now)
    parent = cluster.submit("recursion")
    cluster.turn()
    cluster.submit_many(5, "recursion")
    cluster.block(parent)
    assert len(cluster.running()) == 2


@pytest.mark.parametrize("end", ["finish", "lose", "requeue"])
def test_a_parent_that_ends_while_it_waits_gives_nothing_back_twice(end: str) -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit("app", 1), cluster.now)
    parent = cluster.submit()
    cluster.turn()
    cluster.block(parent)
    if end == "finish":
        cluster.finish(parent)
    elif end == "lose":
        cluster.lose(cluster.worker_of(parent))
    else:
        cluster.requeue(parent)
    cluster.submit_many(5)
    cluster.turn()
    assert len(cluster.running()) == 1


def test_bookkeeping_counts_against_no_limit() -> None:
    cluster = Cluster(1)
    cluster.scheduler.handle(SetLimit("app", 0), cluster.now)
    message = cluster.submit()
    cluster.turn()
    cluster.scheduler.handle(Revoke([message.id]), cluster.now)
    cluster.turn()
    assert cluster.settled == [(message.id, "revoked")]
