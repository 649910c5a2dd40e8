"""Nodes that Ray's autoscaler adds: how many are asked for, for what, and when they are wanted no more."""

from __future__ import annotations

from typing import Any

import pytest

from raycelery.scheduler.events import AutoscalerFound, NodeRemoved, SetLimit
from raycelery.scheduler.instructions import Kill, Start
from raycelery.scheduler.model import Message, NodeType
from tests.dispatcher.scheduler_cluster import Cluster

CPU4 = NodeType("cpu", {"CPU": 4.0}, 4)


def cluster_of(*nodes: Any, types: list[NodeType] | None = None, maximum: int | None = None, **policy: Any) -> Cluster:
    """A cluster with an autoscaler."""
    cluster = Cluster(*nodes, **policy)
    cluster.scheduler.handle(AutoscalerFound([CPU4] if types is None else types, maximum), cluster.now)
    return cluster


def ahead(cluster: Cluster) -> int:
    """How many executors are pending for nodes that have not come."""
    return sum(worker.node is None for worker in cluster.workers.values())


def test_the_whole_backlog_is_asked_for_at_once() -> None:
    cluster = cluster_of(0)
    messages = cluster.submit_many(40, lane=cluster.lane(2))
    cluster.turn()
    assert ahead(cluster) == 8
    assert cluster.scheduler.view.growth == "40 tasks wait for 2 CPU: autoscaler is adding 4 nodes"
    assert cluster.scheduler.view.why(messages[1], cluster.now).startswith(
        "It waits for a node: it asks for 2 CPU, and the autoscaler is adding 4 nodes since 0.0 s; 1 message is ahead"
    )
    cluster.pass_time(3600)
    assert not cluster.ended
    for number in range(4):
        cluster.node(f"new{number}", 4)
        cluster.pass_time(1)
        assert len(cluster.running()) == 2 * (number + 1)
    assert ahead(cluster) == 0
    assert cluster.scheduler.view.growth == "32 tasks wait for 2 CPU: autoscaler has added as many nodes as it may"
    cluster.run_all(3.0)
    assert {cluster.how(message) for message in messages} == {"done"}
    assert cluster.scheduler.view.growth == ""


def test_what_no_node_type_holds_fails_at_once_and_names_the_largest() -> None:
    types = [CPU4, NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 2), NodeType("off", {"CPU": 64.0}, 0)]
    cluster = cluster_of(0, types=types)
    large, gpus = cluster.submit(lane=cluster.lane(16)), cluster.submit(lane=cluster.lane(1, GPU=2.0))
    held = cluster.submit(lane=cluster.lane(1, GPU=1.0))
    cluster.pass_time(0.1)
    assert cluster.how(large) == cluster.how(gpus) == "infeasible"
    assert (
        large.reason
        == "no node has 16 CPU: the largest node type of the autoscaler is 'gpu' with 8 CPU; ask for less, "
        "or add a node type"
    )
    assert (
        "no node has 1 CPU, 2 GPU: the largest node type of the autoscaler is 'gpu' with 8 CPU, 1 GPU;" in gpus.reason
    )
    assert not cluster.how(held)


def test_what_a_present_node_holds_needs_no_type() -> None:
    cluster = cluster_of(16)
    message = cluster.submit(lane=cluster.lane(16))
    cluster.turn()
    assert cluster.is_running(message)


def test_where_the_types_are_not_known_it_waits() -> None:
    cluster = Cluster(0, infeasible_seconds=5.0)
    message = cluster.submit(lane=cluster.lane(2))
    cluster.pass_time(1)
    cluster.scheduler.handle(AutoscalerFound(None), cluster.now)
    cluster.pass_time(3600)
    assert not cluster.how(message)
    cluster.node("new", 4)
    cluster.turn()
    assert cluster.is_running(message)


def test_no_node_is_asked_for_where_the_setting_says_so() -> None:
    cluster = cluster_of(0, max_nodes_ahead=0, infeasible_seconds=5.0)
    message = cluster.submit()
    cluster.turn()
    cluster.pass_time(6)
    assert cluster.how(message) == "infeasible"
    assert "the most that any has is 0 CPU" in message.reason


@pytest.mark.parametrize(
    ("bound", "executors", "nodes"),
    [
        ({"max_nodes_ahead": 2}, 4, 2),
        ({"max_executors": 3}, 3, 2),
        ({"maximum": 1}, 2, 1),
        ({"types": [NodeType("large", {"CPU": 16.0}, None)], "max_nodes_ahead": 3}, 24, 3),
    ],
)
def test_bounds(bound: dict[str, Any], executors: int, nodes: int) -> None:
    cluster = cluster_of(0, **bound)
    cluster.submit_many(40, lane=cluster.lane(2))
    cluster.turn()
    assert (ahead(cluster), cluster.scheduler.view.nodes_asked) == (executors, nodes)


@pytest.mark.parametrize("name", ["app", "queue:celery", "task:task"])
def test_what_a_limit_holds_back_asks_for_nothing(name: str) -> None:
    cluster = cluster_of(0)
    cluster.scheduler.handle(SetLimit(name, 3), cluster.now)
    cluster.submit_many(40, lane=cluster.lane(2))
    cluster.turn()
    assert ahead(cluster) == 3
    cluster.scheduler.handle(SetLimit(name, 1), cluster.now)
    cluster.pass_time(1)
    assert ahead(cluster) == 1


def test_what_a_rate_holds_back_asks_for_nothing() -> None:
    cluster = cluster_of(0)
    cluster.set_rate("task", 1.0)
    cluster.submit_many(40, lane=cluster.lane(2))
    cluster.turn()
    assert ahead(cluster) == 1


def test_what_is_purged_is_asked_for_no_more() -> None:
    cluster = cluster_of(0)
    cluster.submit_many(40)
    cluster.turn()
    assert ahead(cluster) == 16
    for message in cluster.purge():
        cluster.end(message, "purged")
    cluster.pass_time(1)
    assert not cluster.workers


def test_two_shapes_are_asked_for_side_by_side() -> None:
    cluster = cluster_of(0)
    cluster.submit_many(40, lane=cluster.lane(1))
    cluster.submit_many(40, lane=cluster.lane(4))
    cluster.turn()
    asked = [worker.lane.request["CPU"] for worker in cluster.workers.values()]
    assert (asked.count(1), asked.count(4)) == (4, 3)
    assert (
        cluster.scheduler.view.growth
        == "40 tasks wait for 1 CPU, 40 tasks wait for 4 CPU: autoscaler is adding 4 nodes"
    )


def test_a_node_that_is_there_is_not_for_those_asked_for_ahead() -> None:
    cluster = cluster_of(4)
    first = cluster.submit_many(10, lane=cluster.lane(2))
    cluster.turn()
    cluster.pass_time(2)
    starts = [decision for decision in cluster.decisions if isinstance(decision, Start) and decision.not_on]
    assert {start.not_on for start in starts} == {("n0",)}
    assert (ahead(cluster), len(cluster.running())) == (6, 2)
    # What becomes free there goes to the lane that the scheduler gives it to.
    other = cluster.submit(lane=cluster.lane(4))
    for _ in range(4):
        cluster.pass_time(10)
        for message in first:
            if cluster.is_running(message):
                cluster.finish(message, 10.0)
    assert cluster.is_running(other)


def test_those_asked_for_before_a_node_came_are_asked_for_again_since_they_could_run_there() -> None:
    cluster = cluster_of(0)
    cluster.submit_many(40, lane=cluster.lane(2))
    cluster.turn()
    cluster.node("new", 4)
    cluster.turn()
    assert ahead(cluster) == 6
    # Not while nodes are still coming: Ray may be about to start them there.
    cluster.pass_time(9)
    assert not [decision for decision in cluster.decisions if isinstance(decision, Kill)]
    cluster.pass_time(2)
    assert ahead(cluster) == 6
    pending = [worker for worker in cluster.workers.values() if worker.node is None]
    assert {worker.not_on for worker in pending} == {("new",)}


def test_a_node_that_goes_before_its_executors_have_started() -> None:
    cluster = cluster_of(0, starts=False)
    messages = cluster.submit_many(2, lane=cluster.lane(4))
    cluster.turn()
    cluster.node("new", 4)
    cluster.turn()
    cluster.scheduler.handle(NodeRemoved("new"), cluster.now)
    cluster.pass_time(1)
    assert cluster.scheduler.view.nodes_asked == 2
    cluster.starts = True
    cluster.node("other", 4)
    cluster.node("third", 4)
    cluster.run_all(5.0, most=60)
    assert {cluster.how(message) for message in messages} == {"done"}


def learned(seconds: float, runtime: float) -> tuple[Cluster, list[Message]]:
    """A cluster with one node that took so long to come, and tasks that are known to run so long."""
    cluster = cluster_of(0)
    first = cluster.submit()
    cluster.turn()
    cluster.pass_time(seconds)
    cluster.node("new", 4)
    cluster.turn()
    cluster.finish(first, runtime)
    messages = cluster.submit_many(16)
    cluster.turn()
    return cluster, messages


def test_what_is_done_before_a_node_could_come_asks_for_none() -> None:
    cluster, messages = learned(seconds=60, runtime=10)
    cluster.pass_time(8)
    assert len(cluster.running()) == 4
    assert ahead(cluster) == 0
    cluster.run_all(10.0, most=60)
    assert {cluster.how(message) for message in messages} == {"done"}


def test_what_is_left_when_a_node_could_come_is_asked_for() -> None:
    cluster, _ = learned(seconds=20, runtime=10)
    cluster.pass_time(2)
    # 12 wait, four executors do 8 of them in 20 s.
    assert ahead(cluster) == 4


def test_a_lane_at_work_has_patience() -> None:
    cluster = cluster_of(4)
    cluster.submit_many(8)
    cluster.turn()
    cluster.pass_time(0.9)
    assert ahead(cluster) == 0
    cluster.pass_time(0.7)
    assert ahead(cluster) == 4


def test_executors_that_do_not_start_are_not_asked_for_without_end() -> None:
    cluster = cluster_of(0)
    messages = cluster.submit_many(4, lane=cluster.lane(4))
    cluster.turn()
    for _ in range(20):
        for worker in list(cluster.workers.values()):
            if worker.id in cluster.workers and worker.node is None and worker.lane.request:
                cluster.lose(worker, "no such package")
        cluster.pass_time(40)
    assert {cluster.how(message) for message in messages} == {"undeliverable"}
