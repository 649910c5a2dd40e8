"""Where little runs, it comes to run on few nodes, so that the autoscaler can take the others."""

from __future__ import annotations

from raycelery.scheduler.events import AutoscalerFound
from raycelery.scheduler.model import NodeType
from tests.dispatcher.scheduler_cluster import Cluster


def trickle(cluster: Cluster, tasks: int, seconds: float) -> None:
    """Have so many tasks of a second each run all the time."""
    for _ in range(int(seconds)):
        messages = cluster.submit_many(tasks)
        cluster.turn()
        assert all(map(cluster.is_running, messages)), "nothing has to wait for that"
        cluster.pass_time(1.0)
        for message in messages:
            cluster.finish(message, 1.0)


def spread(autoscaler: bool) -> Cluster:
    """A cluster of four nodes, on each of which an executor works and another does not."""
    cluster = Cluster(2, 2, 2, 2, idle_seconds=60.0)
    if autoscaler:
        cluster.scheduler.handle(AutoscalerFound([NodeType("cpu", {"CPU": 2.0}, 4)]), cluster.now)
    messages = cluster.submit_many(8)
    cluster.turn()
    nodes = [cluster.worker_of(message).node for message in messages]
    assert len(set(nodes)) == 4
    last = [next(m for m, node in zip(messages, nodes, strict=True) if node == name) for name in sorted(set(nodes))]
    for message in [*(m for m in messages if m not in last), *last]:
        cluster.finish(message, 1.0)
    return cluster


def nodes(cluster: Cluster) -> int:
    """How many nodes have executors."""
    return len({worker.node for worker in cluster.workers.values()})


def test_executors_that_others_could_replace_end() -> None:
    cluster = spread(autoscaler=True)
    trickle(cluster, 4, 45)
    assert nodes(cluster) == 2
    trickle(cluster, 4, 60)
    assert nodes(cluster) == 2


def test_without_an_autoscaler_nobody_gains_by_it() -> None:
    cluster = spread(autoscaler=False)
    trickle(cluster, 4, 45)
    assert nodes(cluster) == 4


def test_a_node_whose_work_the_others_have_no_room_for_stays() -> None:
    cluster = spread(autoscaler=True)
    trickle(cluster, 8, 100)
    assert nodes(cluster) == 4
