"""Tasks that wait for tasks: however deep and many, and whatever each asks for, none waits for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import group
from celery.exceptions import WorkerLostError
from celery.result import ResultSet

from tests import parents, records, sample, tasks, tuned
from tests.support import until

SECONDS = 100

pytestmark = pytest.mark.usefixtures("warm_ray")


def join(results: list[Any]) -> list[Any]:
    return ResultSet(results, app=sample.app).join(timeout=SECONDS)  # type: ignore[no-any-return]


def test_parents_on_all_cpus_wait_for_children(path: str) -> None:
    waiting = [parents.sum_of_children.delay(path, 5, 0.05) for _ in range(4)]
    assert join(waiting) == [10] * 4


def test_many_more_parents_than_cpus(path: str) -> None:
    waiting = [parents.sum_of_children.delay(path, 3) for _ in range(40)]
    assert join(waiting) == [3] * 40
    assert len(records.read(path)) == 120


def test_recursion_deeper_than_there_are_cpus() -> None:
    assert sample.nested.delay(6).get(timeout=SECONDS) == 6


def test_several_recursions_at_once() -> None:
    assert join([sample.nested.delay(4) for _ in range(4)]) == [4] * 4


def test_a_tree() -> None:
    assert parents.fibonacci.delay(6).get(timeout=SECONDS) == 8


def test_parent_child_and_grandchild_with_different_cpus() -> None:
    assert parents.wide_parent.delay(3).get(timeout=SECONDS) == [0, 1, 4]


def test_parents_of_different_cpus_at_once() -> None:
    assert join([parents.wide_parent.delay(2) for _ in range(3)]) == [[0, 1]] * 3


def test_waiting_without_leave_is_refused_as_by_celery() -> None:
    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        parents.forbidden.delay().get(timeout=SECONDS)


def test_a_wait_that_times_out(path: str) -> None:
    assert parents.impatient.delay(path).get(timeout=SECONDS) == "released"


def test_a_soft_limit_ends_a_wait(path: str) -> None:
    assert parents.limited_parent.delay(path).get(timeout=SECONDS) == "limited"


def test_parents_under_a_limit_of_their_own() -> None:
    assert join([parents.lonely_parent.delay(i) for i in range(6)]) == list(range(1, 7))


def test_under_a_limit_of_the_application() -> None:
    """Two at most run; a parent that waits is not one of them."""
    results = [tuned.bounded_parent.delay(3) for _ in range(4)]
    assert ResultSet(results, app=tuned.bounded).join(timeout=SECONDS) == [3] * 4


def test_a_parent_that_is_terminated_gives_its_cpus_back(tmp_path: Path, path: str) -> None:
    go = tmp_path / "go"
    waiting = [parents.parent_of_held.delay(str(tmp_path / f"held-{i}"), str(go)) for i in range(4)]
    until(lambda: len(list(tmp_path.glob("held-?"))) == 4)
    for parent in waiting[:2]:
        parent.revoke(terminate=True)
    go.touch()
    assert join(waiting[2:]) == ["released"] * 2
    assert join([parents.sum_of_children.delay(path, 3) for _ in range(4)]) == [3] * 4
    join([tasks.span.delay(str(tmp_path / "spans"), 0.1) for _ in range(24)])
    assert records.overlap(records.read(tmp_path / "spans")) <= 4, "no CPU is lent for ever"


def test_a_child_that_dies_is_the_parents_to_handle() -> None:
    with pytest.raises(WorkerLostError):
        parents.parent_of_death.delay().get(timeout=SECONDS)
    assert group(sample.add.s(i, 1) for i in range(8)).delay().get(timeout=SECONDS) == list(range(1, 9))
