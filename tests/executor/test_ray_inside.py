"""Ray work inside tasks and beside them, which needs the CPUs that tasks hold; on a Ray that no one else uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.executor import inside

Try = Callable[[str], None]


@pytest.fixture(scope="module")
def attempt() -> Iterator[Try]:
    """Try something in a program with a Ray of its own."""
    with inside.attempts() as attempt:
        yield attempt


@pytest.mark.parametrize("what", [what for what in inside.ALONE if what not in inside.MORE])
def test_ray_work_of_tasks_that_hold_all_cpus(what: str, attempt: Try) -> None:
    attempt(f"alone {what}")


@pytest.mark.parametrize("what", [what for what in inside.BESIDE if what not in inside.MORE])
def test_ray_work_finds_room_beside_a_backlog(what: str, attempt: Try) -> None:
    attempt(f"beside {what}")
