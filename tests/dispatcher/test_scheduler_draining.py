"""Nodes that will be taken away are emptied."""

from __future__ import annotations

from raycelery.scheduler.events import AutoscalerFound, NodeDraining, NodeRemoved
from raycelery.scheduler.model import NodeType
from tests.dispatcher.scheduler_cluster import Cluster


def drain(cluster: Cluster, node: str, seconds: float | None = None) -> None:
    """Announce that a node will be taken away."""
    deadline = None if seconds is None else cluster.now + seconds
    cluster.scheduler.handle(NodeDraining(node, deadline), cluster.now)
    cluster.turn()


def test_nothing_new_goes_there_and_what_runs_may_end() -> None:
    cluster = Cluster(2, 2)
    messages = cluster.submit_many(8)
    cluster.turn()
    there = [worker.running for worker in cluster.workers.values() if worker.node == "n0"]
    drain(cluster, "n0")
    assert len(cluster.running()) == 4, "what runs goes on"
    for message in there:
        assert message is not None
        cluster.finish(message)
    assert not [worker for worker in cluster.workers.values() if worker.node == "n0"]
    cluster.run_all(1.0, most=60)
    assert {cluster.how(message) for message in messages} == {"done"}


def test_idle_executors_and_those_that_start_end_at_once() -> None:
    cluster = Cluster(2, starts=False)
    cluster.submit_many(2)
    cluster.turn()
    first, _ = cluster.workers.values()
    cluster.ready(first)
    cluster.finish(first.running or cluster.submit())
    drain(cluster, "n0")
    assert not [worker for worker in cluster.workers.values() if worker.node == "n0" and worker.running is None]


def test_what_had_not_begun_goes_elsewhere_at_once() -> None:
    cluster = Cluster(1, batch_samples=2)
    cluster.learn("quick")
    messages = cluster.submit_many(10, "quick")
    cluster.turn()
    assert len(next(iter(cluster.workers.values())).messages) > 1
    cluster.node("n1", 1)
    drain(cluster, "n0")
    [old] = [worker for worker in cluster.workers.values() if worker.node == "n0"]
    assert len(old.messages) == 1
    cluster.run_all(0.001, most=60)
    assert {cluster.how(message) for message in messages} == {"done"}


def test_what_still_runs_at_the_deadline_may_run_again_and_counts_as_not_delivered() -> None:
    cluster = Cluster(1, settles=False, max_deliveries=1)
    message = cluster.submit()
    cluster.turn()
    drain(cluster, "n0", seconds=30)
    cluster.pass_time(20)
    assert cluster.is_running(message)
    cluster.node("n1", 1)
    cluster.pass_time(10)
    assert message.settle_reason == "preempted"
    cluster.scheduler.handle(NodeRemoved("n0"), cluster.now)
    cluster.requeue(message)
    assert message.deliveries == 0
    cluster.pass_time(1)
    assert cluster.is_running(message)
    cluster.finish(message)
    assert cluster.how(message) == "done"


def test_a_node_that_goes_before_its_deadline() -> None:
    cluster = Cluster(1, settles=False)
    message = cluster.submit()
    cluster.turn()
    drain(cluster, "n0", seconds=30)
    [worker] = cluster.workers.values()
    cluster.lose(worker, "its node died")
    assert message.settle_reason == "preempted"


def test_a_request_that_only_the_node_could_hold_asks_for_another() -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(AutoscalerFound([NodeType("cpu", {"CPU": 4.0}, 2)]), cluster.now)
    drain(cluster, "n0")
    cluster.submit(lane=cluster.lane(4))
    cluster.turn()
    assert cluster.scheduler.view.nodes_asked == 1
