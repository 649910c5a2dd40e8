"""What ``ray_debug`` finds: transitions that cannot be, and books that do not agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raycelery.scheduler import phases
from raycelery.scheduler.parts import Parts
from raycelery.scheduler.phases import ExecutorPhase, IllegalTransition, MessagePhase
from raycelery.scheduler.validate import BooksDisagree
from tests.dispatcher.scheduler_cluster import Cluster


def test_a_message_that_has_ended_cannot_wait() -> None:
    cluster = Cluster(1)
    message = cluster.submit()
    cluster.turn()
    cluster.finish(message)
    with pytest.raises(IllegalTransition, match="message m1 cannot be waiting after it was done"):
        message.move(MessagePhase.WAITING)
    phases.enforce(False)
    message.move(MessagePhase.WAITING)
    phases.enforce(True)


def test_an_executor_that_ends_cannot_be_busy() -> None:
    cluster = Cluster(1, stops=False)
    message = cluster.submit()
    cluster.turn()
    cluster.finish(message)
    executor = cluster.scheduler.view.executors[message.executor_id]
    cluster.pass_time(61)
    with pytest.raises(IllegalTransition, match=f"executor {executor.id} cannot be busy after it was stopping"):
        executor.move(ExecutorPhase.BUSY)


def _count_one_more(parts: Parts) -> None:
    parts.limits.app.used += 1


def _lose_a_message(parts: Parts) -> None:
    next(iter(parts.waiting.streams.values())).heap.clear()


def _give_cpus_away(parts: Parts) -> None:
    next(iter(parts.nodes)).free["CPU"] += 1


def _misfile_an_executor(parts: Parts) -> None:
    parts.executors.idle[next(iter(parts.executors.all))] = None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_count_one_more, "a limit is miscounted: app"),
        (_lose_a_message, "messages are not where they say"),
        (_give_cpus_away, "what a node has free is miscounted: n0"),
        (_misfile_an_executor, "idle executors are misfiled"),
    ],
)
def test_books_that_do_not_agree_are_found(spoil: Callable[[Parts], None], said: str) -> None:
    cluster = Cluster(1)
    cluster.submit_many(2)
    cluster.turn()
    cluster.scheduler.validate()
    spoil(cluster.scheduler._parts)
    with pytest.raises(BooksDisagree, match=said):
        cluster.scheduler.validate()
