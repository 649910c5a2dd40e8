"""Who gets executors: order within a queue, turns between queues, shares between lanes."""

from __future__ import annotations

from collections import Counter

import pytest

from raycelery.scheduler.events import MakeRoom, RayDemand, Revoke, SetLimit
from raycelery.scheduler.instructions import Kill, Start, Stop
from raycelery.scheduler.model import Lane, Message
from raycelery.scheduler.phases import MessagePhase
from tests.dispatcher.scheduler_cluster import Cluster, ids


def test_a_queue_is_served_by_priority_then_age_whatever_the_tasks() -> None:
    cluster = Cluster(1)
    cluster.submit("busy")
    cluster.turn()
    messages = [cluster.submit(f"task{n % 3}", priority=n * 7 % 4) for n in range(12)]
    cluster.begun.clear()
    cluster.run_all()
    assert cluster.begun == ids(sorted(messages, key=lambda message: (message.priority, message.seq)))


def test_queues_of_a_lane_take_turns() -> None:
    cluster = Cluster(1)
    many = cluster.submit_many(30, queue="many")
    few = cluster.submit_many(3, queue="few")
    cluster.turn()
    for _ in range(6):
        cluster.finish(next(m for m in [*many, *few] if cluster.is_running(m)))
    assert len(set(cluster.begun[:7]) & set(ids(few))) == 3


def test_a_tasks_position_in_a_queue_costs_nothing_to_the_others() -> None:
    cluster = Cluster(2)
    for number in range(300):
        cluster.submit(f"task{number}")
    cluster.run_all()
    assert cluster.begun[:3] == ["m1", "m2", "m3"]


def shares(cluster: Cluster) -> Counter[str]:
    """Return the CPUs that run messages, by lane."""
    found: Counter[str] = Counter()
    for worker in cluster.workers.values():
        if worker.running is not None:
            found[worker.lane.key] += int(worker.lane.request.get("CPU", 0))
    return found


def keep_busy(cluster: Cluster, lanes: list[Lane], seconds: float, step: float = 0.5) -> Counter[str]:
    """Have a backlog in all lanes for a time; returns the CPU seconds each lane got."""
    got: Counter[str] = Counter()
    for _ in range(int(seconds / step)):
        for lane in lanes:
            while sum(m.lane == lane.key and m.phase is MessagePhase.WAITING for m in cluster.live.values()) < 20:
                cluster.submit(lane=lane)
        running = [m for m in cluster.live.values() if cluster.is_running(m)]
        cluster.pass_time(step)
        for lane_key, cpus in shares(cluster).items():
            got[lane_key] += cpus  # type: ignore[assignment]
        for message in running:
            if cluster.is_running(message):
                cluster.finish(message, step)
    return got


def test_two_busy_lanes_come_to_share_the_cpus_evenly() -> None:
    cluster = Cluster(8, 8)
    first, second = cluster.lane(1), cluster.lane(2)
    keep_busy(cluster, [first], 5)
    assert shares(cluster) == {first.key: 16}
    keep_busy(cluster, [first, second], 30)
    assert shares(cluster) == {first.key: 8, second.key: 8}


def test_a_balance_is_kept_without_more_starts_and_stops() -> None:
    cluster = Cluster(3)
    first, second = cluster.lane(1), cluster.lane(1, env="other")
    keep_busy(cluster, [first, second], 20)
    settled = dict(cluster.workers)
    keep_busy(cluster, [first, second], 20)
    assert cluster.workers == settled, "the odd CPU does not change hands"


def test_lanes_take_turns_where_there_is_one_cpu() -> None:
    cluster = Cluster(1)
    lanes = [cluster.lane(1, env=env) for env in "abc"]
    got = keep_busy(cluster, lanes, 60)
    assert min(got[lane.key] for lane in lanes) > 0.2 * sum(got.values())


def test_a_whole_node_is_cleared_for_one_that_needs_it() -> None:
    cluster = Cluster(16, 16)
    narrow, whole = cluster.lane(1), cluster.lane(16)
    keep_busy(cluster, [narrow], 3)
    large = cluster.submit(lane=whole)
    keep_busy(cluster, [narrow], 8)
    assert cluster.how(large) == "done"


def test_a_whole_node_is_cleared_though_it_leaves_nothing_to_the_others() -> None:
    cluster = Cluster(4)
    narrow = [cluster.lane(1, env=env) for env in "ab"]
    keep_busy(cluster, narrow, 3)
    large = cluster.submit(lane=cluster.lane(4))
    keep_busy(cluster, narrow, 12)
    assert cluster.how(large) == "done"


def test_many_lanes_find_the_lane_with_too_much_on_a_large_cluster() -> None:
    cluster = Cluster(*[2] * 40)
    hog = cluster.lane(1)
    small = [cluster.lane(2, env=str(number)) for number in range(20)]
    for lane in small:
        cluster.submit(lane=lane)
    cluster.turn()
    keep_busy(cluster, [hog], 4)
    late = cluster.submit(lane=cluster.lane(2, env="late"))
    keep_busy(cluster, [hog], 4)
    assert cluster.how(late) == "done", "though the first nodes all belong to lanes with little"


def test_a_busy_lane_keeps_its_executors_for_a_slice() -> None:
    cluster = Cluster(1, slice_seconds=5.0)
    first, second = cluster.lane(1), cluster.lane(1, env="other")
    messages = cluster.submit_many(50, lane=first)
    cluster.turn()
    late = cluster.submit(lane=second)
    for second_passed in range(5):
        assert not cluster.is_running(late), second_passed
        cluster.pass_time(1.0)
        cluster.finish(messages[second_passed])
    cluster.turn()
    assert cluster.is_running(late)


def finish_for(cluster: Cluster, messages: list[Message], seconds: float, step: float = 0.5) -> None:
    """Have those that run finish after each step."""
    for _ in range(int(seconds / step)):
        running = [message for message in messages if cluster.is_running(message)]
        cluster.pass_time(step)
        for message in running:
            if cluster.is_running(message):
                cluster.finish(message, step)


@pytest.mark.parametrize(("count", "waits"), [(10, True), (60, False)])
def test_a_lane_may_finish_what_is_soon_done_before_it_gives_way(count: int, waits: bool) -> None:
    cluster = Cluster(1, slice_seconds=2.0, finish_seconds=6.0)
    many = cluster.submit_many(count, lane=cluster.lane(1))
    finish_for(cluster, many, 1)
    late = cluster.submit(lane=cluster.lane(1, env="other"))
    finish_for(cluster, many, 2.5)
    assert cluster.is_running(late) != waits
    finish_for(cluster, many, 3)
    assert cluster.is_running(late)


def test_of_lanes_that_come_together_the_one_that_needs_most_starts_last() -> None:
    cluster = Cluster(2)
    large = cluster.submit(lane=cluster.lane(2))
    small = cluster.submit_many(2, lane=cluster.lane(1))
    cluster.turn()
    assert all(cluster.is_running(message) for message in small)
    cluster.run_all()
    assert cluster.how(large) == "done"


def test_an_idle_lane_gives_way_at_once() -> None:
    cluster = Cluster(4)
    for message in cluster.submit_many(4):
        cluster.turn()
        cluster.finish(message)
    cluster.submit_many(4)
    cluster.run_all()
    late = cluster.submit_many(2, lane=cluster.lane(2))
    cluster.turn()
    assert all(cluster.is_running(message) for message in late)


def test_all_idle_executors_that_are_in_the_way_end_together() -> None:
    cluster = Cluster(*[1] * 30, stops=False)
    cluster.submit_many(30)
    cluster.run_all()
    cluster.submit_many(25, lane=cluster.lane(1, env="other"))
    cluster.turn()
    assert sum(worker.stopping for worker in cluster.workers.values()) == 25


def test_no_more_idle_executors_end_than_are_in_the_way() -> None:
    cluster = Cluster(8)
    cluster.submit_many(8)
    cluster.run_all()
    cluster.submit(lane=cluster.lane(2))
    decisions = cluster.turn()
    assert sum(isinstance(decision, Stop) for decision in decisions) == 2


def test_a_message_that_takes_long_cannot_be_made_to_end_but_its_node_is_not_kept_from_others_who_fit() -> None:
    cluster = Cluster(2, 2)
    long = cluster.submit_many(2, "long")
    cluster.turn()
    waiting = cluster.submit(lane=cluster.lane(2))
    cluster.pass_time(10)
    assert cluster.is_running(waiting), "both long ones went to one node"
    assert all(cluster.is_running(message) for message in long)


def test_executors_of_a_lane_are_packed_on_few_nodes() -> None:
    cluster = Cluster(4, 4, 4)
    cluster.submit_many(4)
    cluster.turn()
    assert len({worker.node for worker in cluster.workers.values()}) == 1


@pytest.mark.parametrize("how", ["purge", "revoke", "done"])
def test_a_node_is_not_kept_clear_for_what_is_not_waited_for_any_more(how: str) -> None:
    cluster = Cluster(2)
    running = cluster.submit_many(2)
    cluster.turn()
    large = cluster.submit(queue="large", lane=cluster.lane(2))
    cluster.pass_time(1.0)
    cluster.finish(running[0])
    small = cluster.submit(lane=cluster.lane(1, env="other"))
    cluster.turn()
    assert not cluster.is_running(small), "the node is kept clear"
    if how == "purge":
        for message in cluster.purge("large"):
            cluster.end(message, "purged")
    elif how == "revoke":
        cluster.scheduler.handle(Revoke([large.id]), cluster.now)
    else:
        cluster.finish(running[1])
        cluster.finish(large)
    cluster.pass_time(0.1)
    assert cluster.is_running(small)


def test_gpus_change_hands_too() -> None:
    cluster = Cluster({"CPU": 8, "GPU": 1})
    first, second = cluster.lane(1, GPU=1), cluster.lane(0, GPU=1)
    cluster.submit_many(10, lane=first)
    cluster.turn()
    late = cluster.submit(lane=second)
    for _ in range(6):
        running = next(m for m in cluster.live.values() if cluster.is_running(m))
        cluster.pass_time(1.0)
        if cluster.is_running(running):
            cluster.finish(running)
    assert cluster.how(late) == "done"


def test_executors_that_need_no_cpu_are_bounded_by_the_number_of_cpus() -> None:
    cluster = Cluster(4)
    cluster.submit_many(50, lane=cluster.lane(0))
    cluster.turn()
    assert len(cluster.workers) == 4


def test_there_are_no_more_executors_than_allowed_and_lanes_share_them() -> None:
    cluster = Cluster(64, max_executors=4)
    first, second = cluster.lane(1), cluster.lane(2)
    keep_busy(cluster, [first], 3)
    assert len(cluster.workers) == 4
    got = keep_busy(cluster, [first, second], 20)
    assert len(cluster.workers) == 4
    assert got[second.key] > 10


def test_an_idle_executor_ends_for_another_lane_where_there_are_as_many_as_allowed() -> None:
    cluster = Cluster(64, max_executors=2)
    cluster.submit_many(2)
    cluster.run_all()
    late = cluster.submit(lane=cluster.lane(2))
    cluster.turn()
    assert cluster.is_running(late)


def test_parents_that_wait_do_not_count_among_the_most_executors() -> None:
    cluster = Cluster(8, max_executors=1)
    parent: Message | None = None
    for _ in range(5):
        child = cluster.submit()
        if parent is not None:
            cluster.block(parent)
        cluster.turn()
        assert cluster.is_running(child)
        parent = child


def test_another_application_gets_idle_executors_and_busy_ones_down_to_an_even_share() -> None:
    cluster = Cluster(8)
    cluster.submit_many(6)
    cluster.turn()
    idle = cluster.submit_many(2)
    cluster.turn()
    for message in idle:
        cluster.finish(message)
    cluster.scheduler.handle(SetLimit("app", 6), cluster.now)
    cluster.submit_many(20)
    cluster.scheduler.handle(MakeRoom({"CPU": 8.0}, 0.0), cluster.now)
    decisions = cluster.turn()
    assert sum(isinstance(decision, Stop) for decision in decisions) == 2
    leaving = sum(executor.leaving for executor in cluster.scheduler.view.executors.values())
    assert leaving == 5, "the first wants one at least, and it may have as many as this one keeps"


def test_cpus_are_lent_by_executors_that_have_nothing_to_do_before_others() -> None:
    cluster = Cluster(4, 2)
    messages = cluster.submit_many(6)
    cluster.turn()
    nodes = {executor.id: executor.node for executor in cluster.scheduler.view.executors.values()}
    [quiet] = [message for message in messages if nodes[message.executor_id] == "n1"][:1]
    cluster.finish(quiet)

    def lendable(cpus: float, patience: float) -> list[int]:
        return cluster.pausing.lendable(cpus, patience)

    assert lendable(1, 10.0) == [quiet.executor_id]
    # All of one node: so one executor of another application can use them.
    assert len(lendable(2, 0.0)) == 2
    assert {nodes[number] for number in lendable(2, 0.0)} == {"n1"}
    assert {nodes[number] for number in lendable(4, 0.0)} == {"n0"}
    assert lendable(4, 10.0) == []
    assert lendable(5, 0.0) == []


def test_a_leased_has_nothing_that_others_could_get() -> None:
    cluster = Cluster(2, starts=False)
    cluster.submit_many(2)
    cluster.turn()
    scheduler = cluster.scheduler
    late = next(iter(scheduler.view.executors))
    leased = cluster.pausing.start_leased(late, "n0")
    assert leased is not None
    decisions = cluster.turn()
    assert any(isinstance(decision, Kill) and decision.executor_id == late for decision in decisions)
    [start] = [decision for decision in decisions if isinstance(decision, Start)]
    # Ray is asked for no CPUs, and yet they are not those of a task of this application that waits.
    assert start.without_cpus
    assert not scheduler.view.executors[leased].backfilled
    cluster.ready(cluster.workers[leased])
    cluster.turn()
    assert cluster.pausing.lendable(1, 0.0) == []
    scheduler.handle(MakeRoom({"CPU": 1.0}, 0.0), cluster.now)
    assert not scheduler.view.executors[leased].leaving
    assert cluster.pausing.start_leased(leased, "gone") is None


def test_an_executor_that_is_paused_gets_nothing_and_is_nowhere_in_the_way() -> None:
    cluster = Cluster(2)
    first, second = cluster.submit_many(2)
    cluster.turn()
    cluster.pausing.pause(first.executor_id)
    waiting = cluster.submit_many(3)
    cluster.finish(first)
    cluster.turn()
    assert cluster.pausing.quiet(first.executor_id)
    assert not any(cluster.is_running(message) for message in waiting)
    assert cluster.pausing.in_use() == 1
    cluster.finish(second)
    cluster.turn()
    assert cluster.is_running(waiting[0])
    # Its CPUs are another's: none are free for a second executor, however long that takes.
    cluster.pass_time(200)
    assert len(cluster.scheduler.view.executors) == 2
    cluster.pausing.resume(first.executor_id)
    cluster.turn()
    assert cluster.is_running(waiting[1])


def test_cpus_of_executors_that_wait_are_lent_unless_others_of_the_application_use_them() -> None:
    cluster = Cluster(2)
    first, _ = cluster.submit_many(2)
    cluster.turn()
    cluster.block(first)
    cluster.turn()
    number = first.executor_id
    assert cluster.pausing.lendable(1, 10.0) == [number]
    cluster.pausing.pause(number)
    cluster.turn()
    assert cluster.pausing.quiet(number)
    [waiting] = cluster.submit_many(1)
    cluster.turn()
    assert not cluster.is_running(waiting), "another application has the CPU"
    cluster.unblock(first)
    assert not cluster.pausing.quiet(number)
    cluster.block(first)
    cluster.pausing.resume(number)
    cluster.turn()
    cluster.pass_time(1)
    assert cluster.is_running(waiting), "the CPU is back"
    assert cluster.pausing.lendable(1, 10.0) == [], "and in use"
    cluster.unblock(first)
    cluster.run_all()


def test_lanes_that_come_and_go_leave_nothing_behind() -> None:
    cluster = Cluster(4)
    for number in range(200):
        cluster.submit(lane=cluster.lane(1, memory=0.0, env=str(number)))
        cluster.run_all()
    cluster.pass_time(200)
    assert not cluster.scheduler.view.lanes
    assert not cluster.scheduler.view.streams()


def test_room_for_ray_work_that_is_no_applications() -> None:
    cluster = Cluster(4)
    first = cluster.submit("waits for Ray")
    cluster.turn()
    cluster.pass_time(5)
    cluster.submit_many(40)
    cluster.turn()
    executor = cluster.worker_of(first).id
    cluster.scheduler.handle(RayDemand({"CPU": 1.0}, 0.0), cluster.now)
    assert [e.id for e in cluster.scheduler.view.executors.values() if e.leaving] != [executor], "that one goes on"
    assert sum(e.leaving for e in cluster.scheduler.view.executors.values()) == 1
    # It does not end, so another is asked; and so on, down to an even share.
    for share, leaving in ((0.0, 2), (1.0, 2), (0.0, 3), (0.0, 4), (0.0, 4)):
        cluster.scheduler.handle(RayDemand({"CPU": 1.0}, share), cluster.now)
        assert sum(e.leaving for e in cluster.scheduler.view.executors.values()) == leaving


def test_what_becomes_free_for_ray_work_is_left_to_it() -> None:
    cluster = Cluster(4)
    messages = cluster.submit_many(40)
    cluster.turn()
    cluster.scheduler.handle(RayDemand({"CPU": 4.0}, 0.0), cluster.now)
    for message in messages[:4]:
        cluster.finish(message)
    assert len(cluster.workers) == 2, "half of all CPUs"
    cluster.pass_time(1.5)
    assert len(cluster.workers) == 2
    # Nobody has said again that it waits.
    cluster.pass_time(1.5)
    assert len(cluster.workers) == 4


def test_ray_work_that_waits_long_is_told_with_the_tasks_that_hold_what_it_waits_for() -> None:
    cluster = Cluster(1)
    cluster.submit("shop.score")
    cluster.turn()
    for _ in range(12):
        assert not cluster.scheduler.view.ray_work(cluster.now)
        cluster.scheduler.handle(RayDemand({"CPU": 1.0}, 0.0), cluster.now)
        cluster.pass_time(0.9)
    assert cluster.scheduler.view.ray_work(cluster.now) == (
        "Ray work waits for 1 CPU since 11 s, held by shop.score: tasks that wait for Ray work need num_cpus=0"
    )
    cluster.pass_time(3)
    assert not cluster.scheduler.view.ray_work(cluster.now)


def test_idle_executors_make_room_for_ray_work_at_once() -> None:
    cluster = Cluster(4)
    for message in cluster.submit_many(4):
        cluster.turn()
        cluster.finish(message)
    cluster.scheduler.handle(RayDemand({"CPU": 1.0}, 3.0), cluster.now)
    cluster.turn()
    assert len(cluster.workers) == 3
