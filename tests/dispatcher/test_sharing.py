"""Applications share one cluster: idle CPUs change hands, busy ones are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery.result import ResultSet

from raycelery.protocol import questions
from tests import scripts, tuned

SECONDS = 60


@pytest.mark.usefixtures("ray_session")
def test_idle_executors_give_way_to_another_application() -> None:
    ResultSet([tuned.north_nap.delay(0.2) for _ in range(8)], app=tuned.north).join(timeout=SECONDS)
    assert ResultSet([tuned.south_nap.delay(0.2) for _ in range(8)], app=tuned.south).join(timeout=SECONDS / 2)
    assert ResultSet([tuned.north_nap.delay(0.2) for _ in range(8)], app=tuned.north).join(timeout=SECONDS / 2)


@pytest.mark.usefixtures("ray_session")
def test_a_backlog_of_one_application_does_not_shut_the_other_out() -> None:
    backlog = [tuned.north_nap.delay(0.3) for _ in range(100)]
    backlog[8].get(timeout=SECONDS)
    ended = ResultSet([tuned.south_nap.delay(0.1) for _ in range(3)], app=tuned.south).join(timeout=SECONDS)
    last = max(ResultSet(backlog, app=tuned.north).join(timeout=SECONDS))
    assert max(ended) < last, "it did not have to wait for the backlog's end"


def halves(app: Any, count: int, seconds: float = 0.1) -> ResultSet:
    return ResultSet([app.tasks["tuned.half"].delay(seconds) for _ in range(count)], app=app)


def leasing(app: Any) -> bool:
    """Return whether an application uses CPUs of another."""
    return bool(app.client.call(questions.Overview())["leased_from"])


@pytest.mark.usefixtures("ray_session")
def test_where_there_are_fewer_cpus_than_applications_they_take_turns() -> None:
    # Two at a time; the first application takes all there is.
    long = halves(tuned.north, 120)
    long[4].get(timeout=SECONDS)
    others = [halves(tuned.south, 40), halves(tuned.east, 40)]
    ended = [other.join(timeout=SECONDS) for other in others]
    last = max(when for when, _ in long.join(timeout=SECONDS))
    for results in ended:
        assert max(when for when, _ in results) < last
        # CPUs came and went, the processes stayed.
        assert len({pid for _, pid in results}) <= 2
    assert len({pid for _, pid in long.join()}) <= 3


#: On a Ray of their own, where nobody else has idle executors to lease.
BEGIN = """
    import os, signal
    from raycelery.protocol import questions
    from tests import support, tuned
    from tests.dispatcher.test_sharing import SECONDS, leasing, halves

    def kill_dispatcher(app):
        os.kill(app.client.call(questions.Stats())["pid"], signal.SIGKILL)

    support.prepare_environment()
    with support.ray_cluster(num_cpus=4, log_to_driver=False):
"""


def test_cpus_come_back_from_an_application_whose_dispatcher_dies(tmp_path: Path) -> None:
    scripts.run(
        tmp_path,
        BEGIN
        + """
        long = halves(tuned.north, 150)
        long[4].get(timeout=SECONDS)
        lost = halves(tuned.south, 1, 3.0)
        support.until(lambda: leasing(tuned.south))
        # What has not begun would be run, and want CPUs, once more.
        support.until(lambda: tuned.south.client.call(questions.Overview())["running"])
        kill_dispatcher(tuned.south)
        ended = sorted(long.join(timeout=SECONDS))
        # Both slots are its own again, soon: it does two at a time at the end.
        assert ended[-1][0] - ended[-21][0] < 20 * 0.1 * 0.9, ended
        assert len({pid for _, pid in ended[-20:]}) == 2, ended
        lost.join(timeout=SECONDS, propagate=False)
        print("ok")
    """,
    )


def test_leased_cpus_are_used_no_more_when_their_application_dies(tmp_path: Path) -> None:
    scripts.run(
        tmp_path,
        BEGIN
        + """
        long = halves(tuned.north, 60)
        long[4].get(timeout=SECONDS)
        others = halves(tuned.south, 60)
        support.until(lambda: leasing(tuned.south))
        kill_dispatcher(tuned.north)
        support.until(lambda: not leasing(tuned.south))
        assert len(others.join(timeout=SECONDS)) == 60
        long.join(timeout=SECONDS, propagate=False)
        print("ok")
    """,
    )


def test_what_no_other_application_has_on_one_node_is_gathered_from_several(tmp_path: Path) -> None:
    scripts.run(
        tmp_path,
        BEGIN
        + """
        # Each of them keeps idle executors, none of them all four CPUs.
        naps = [tuned.north_nap.delay(0.2) for _ in range(2)] + [tuned.south_nap.delay(0.2) for _ in range(2)]
        for nap in naps:
            nap.get(timeout=SECONDS)
        large = tuned.east.tasks["tuned.half"].apply_async((0.1,), num_cpus=4)
        large.get(timeout=30)
        print("ok")
    """,
    )


def test_no_more_is_promised_than_is_wanted_while_long_tasks_end(tmp_path: Path) -> None:
    scripts.run(
        tmp_path,
        BEGIN
        + """
        # Four CPUs are busy for long; another application wants one of them.
        long = [tuned.north_nap.delay(3.0) for _ in range(12)]
        support.until(lambda: len(tuned.north.client.call(questions.Overview())["running"]) == 4)
        short, lent = tuned.south_nap.delay(0.1), set()
        def over() -> bool:
            lent.add(sum(tuned.north.client.call(questions.Overview())["leased_to"].values()))
            return short.ready()

        support.until(over)
        assert max(lent) == 1, lent
        ended = sorted(nap.get(timeout=SECONDS) for nap in long)
        # Three rounds of four, but for what the other took.
        assert ended[-1] - ended[0] < 3 * 3.0 + 1, ended
        print("ok")
    """,
    )
