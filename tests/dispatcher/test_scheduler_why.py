"""Why a message is where it is, in words: for every phase, and for everything that a message may wait for."""

from __future__ import annotations

import pytest

from raycelery.scheduler.events import ExecutorFailed, NodeRemoved, Revoke, SetLimit
from raycelery.scheduler.model import Message
from tests.dispatcher.scheduler_cluster import Cluster


def why(cluster: Cluster, message: Message) -> str:
    return cluster.scheduler.view.why(message, cluster.now, {"n0": "tuna", "n1": "cod"}.__getitem__)


def test_one_that_is_scheduled() -> None:
    cluster = Cluster(1)
    message = cluster.submit(delay=90)
    cluster.pass_time(30)
    assert why(cluster, message) == "It is scheduled for 1970-01-12 13:48:10 UTC, in 60 s."


def test_one_that_was_revoked_and_waits_to_be_recorded() -> None:
    cluster = Cluster(1, starts=False)
    message = cluster.submit()
    cluster.scheduler.handle(Revoke([message.id]), cluster.now)
    cluster.turn()
    assert why(cluster, message) == "It is not run: it was revoked. It waits for an executor to record that."


@pytest.mark.parametrize(
    ("name", "what"), [("app", "the application"), ("queue:celery", "queue 'celery'"), ("task:task", "task task")]
)
def test_one_that_waits_for_a_limit(name: str, what: str) -> None:
    cluster = Cluster(4)
    cluster.scheduler.handle(SetLimit(name, 2), cluster.now)
    first, second, third = cluster.submit_many(3)
    cluster.turn()
    assert why(cluster, third) == (
        f"It waits for the max_concurrency of {what}, which is 2: 2 messages of it run ({first.id}, {second.id})."
    )


def test_one_whose_queue_is_not_to_be_run() -> None:
    cluster = Cluster(1)
    cluster.scheduler.handle(SetLimit("queue:celery", 0), cluster.now)
    message = cluster.submit()
    cluster.turn()
    assert why(cluster, message) == "It waits for queue 'celery' to be let run: its max_concurrency is 0."


def test_one_that_waits_for_a_rate() -> None:
    cluster = Cluster(4)
    cluster.set_rate("task", 0.1)
    cluster.submit_many(2)
    last = cluster.submit()
    cluster.turn()
    cluster.pass_time(4)
    assert why(cluster, last) == (
        "It waits for the rate limit of task task, which is 0.1 per second: the next one may begin in 6 s, and "
        "1 message is ahead of it in queue 'celery'."
    )


def test_one_that_waits_for_room() -> None:
    cluster = Cluster(4, 2)
    cluster.submit_many(2, lane=cluster.lane(2))
    cluster.submit(lane=cluster.lane(1))
    cluster.turn()
    large = cluster.lane(3)
    first, second = cluster.submit_many(2, lane=large)
    cluster.turn()
    assert why(cluster, first) == (
        "It waits for room: it asks for 3 CPU, and the best of 2 nodes has 1 CPU free; it is the first in queue "
        "'celery'."
    )
    assert why(cluster, second).endswith("; 1 message is ahead of it in queue 'celery'.")


def test_one_that_waits_for_a_busy_executor() -> None:
    cluster = Cluster(1)
    cluster.submit()
    waiting = cluster.submit(priority=1)
    urgent = cluster.submit()
    cluster.turn()
    said = why(cluster, waiting)
    assert "asks for 1 CPU, and the node has 0 CPU free while 1 executor for such messages is busy" in said
    assert "1 message is ahead of it" in said
    assert "it is the first in queue" in why(cluster, urgent)


def test_one_that_waits_for_an_executor_to_start() -> None:
    cluster = Cluster(1, starts=False)
    message = cluster.submit()
    cluster.turn()
    cluster.pass_time(3)
    assert why(cluster, message).startswith("It waits for an executor for 1 CPU, being started since 3 s;")


def test_one_whose_executors_do_not_start() -> None:
    cluster = Cluster(1, starts=False)
    message = cluster.submit()
    cluster.turn()
    for _ in range(2):
        [worker] = cluster.workers.values()
        del cluster.workers[worker.id]
        cluster.scheduler.handle(ExecutorFailed(worker.id, "out of memory", crashed=True), cluster.now)
        cluster.turn()
    assert why(cluster, message).startswith(
        "It waits for an executor for 1 CPU: 2 tries to start one failed (out of memory); the next is in "
    )


def test_one_for_which_there_are_as_many_executors_as_may_be() -> None:
    cluster = Cluster(4, max_executors=1)
    cluster.submit(lane=cluster.lane(2))
    cluster.turn()
    message = cluster.submit()
    cluster.turn()
    assert "has as many as ray_max_executors lets it have (1), and all are busy" in why(cluster, message)


def test_one_that_no_node_can_hold() -> None:
    cluster = Cluster(4, infeasible_seconds=10)
    message = cluster.submit(lane=cluster.lane(8))
    cluster.turn()
    cluster.pass_time(4)
    assert why(cluster, message) == (
        "No node is large enough: it asks for 8 CPU, and the most that any has is 4 CPU. It has waited for such a "
        "node for 4 s, and fails in 6 s unless one comes."
    )


def test_one_that_waits_for_the_cluster() -> None:
    cluster = Cluster(1)
    cluster.scheduler.handle(NodeRemoved("n0"), cluster.now)
    message = cluster.submit()
    cluster.turn()
    assert why(cluster, message) == "It waits for the cluster: no node is known yet."


def test_one_that_runs_and_waits_for_its_subtasks() -> None:
    cluster = Cluster(1)
    message = cluster.submit()
    cluster.turn()
    cluster.pass_time(2)
    assert why(cluster, message) == f"It runs on executor {message.executor_id} on node tuna, since 2 s."
    cluster.block(message)
    assert why(cluster, message).endswith(", since 2 s, and waits for its subtasks.")


def test_one_that_is_next_in_a_batch() -> None:
    cluster = Cluster(1, recalls=False)
    cluster.learn("task")
    first, second, third, _ = cluster.submit_many(4)
    cluster.turn()
    assert first.executor_id == third.executor_id
    assert why(cluster, third) == (
        f"It was assigned to executor {third.executor_id} on node tuna 0.0 s ago, and is number 3 of 3 in its batch."
    )
    cluster.pass_time(1)
    assert why(cluster, third).endswith("in its batch, which is called back.")
    cluster.scheduler.handle(Revoke([second.id]), cluster.now)
    assert why(cluster, second).endswith("is number 2 of 3 in its batch; it was revoked, so it is called back.")


def test_one_whose_executor_is_killed_and_then_settled() -> None:
    cluster = Cluster(1, settles=False)
    message = cluster.submit(time_limit=5)
    cluster.turn()
    worker = cluster.worker_of(message)
    cluster.now += 6
    cluster.scheduler.decide(cluster.now)
    assert why(cluster, message) == (
        f"It is with executor {worker.id} on node tuna, which is being ended: its hard time limit passed."
    )
    cluster.lose(worker, "killed")
    said = why(cluster, message)
    assert said.startswith("It is being settled by executor ")
    assert said.endswith(": it passed its hard time limit (its hard time limit passed).")


def test_one_that_was_delivered_before() -> None:
    cluster = Cluster(1)
    message = cluster.submit()
    cluster.turn()
    cluster.submit()
    cluster.requeue(message)
    assert why(cluster, message).endswith(" It was delivered 1 time before.")
