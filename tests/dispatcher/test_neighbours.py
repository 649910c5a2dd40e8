"""Two applications share one cluster: idle CPUs change hands, busy ones are shared."""

from __future__ import annotations

import pytest
from celery.result import ResultSet

from tests import tuned

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60


def test_idle_executors_give_way_to_another_application() -> None:
    ResultSet([tuned.north_nap.delay(0.2) for _ in range(8)], app=tuned.north).join(timeout=SECONDS)
    assert ResultSet([tuned.south_nap.delay(0.2) for _ in range(8)], app=tuned.south).join(timeout=SECONDS / 2)
    assert ResultSet([tuned.north_nap.delay(0.2) for _ in range(8)], app=tuned.north).join(timeout=SECONDS / 2)


def test_a_backlog_of_one_application_does_not_shut_the_other_out() -> None:
    backlog = [tuned.north_nap.delay(0.3) for _ in range(100)]
    backlog[8].get(timeout=SECONDS)
    ended = ResultSet([tuned.south_nap.delay(0.1) for _ in range(3)], app=tuned.south).join(timeout=SECONDS)
    last = max(ResultSet(backlog, app=tuned.north).join(timeout=SECONDS))
    assert max(ended) < last, "it did not have to wait for the backlog's end"
