"""Ray Train, Tune and Serve, inside tasks and beside them, on a Ray of two CPUs."""

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


@pytest.mark.parametrize("what", ["alone Ray Train", "alone Ray Tune", "beside Ray Train", "beside Ray Serve"])
def test_what_is_built_on_ray_finds_room(what: str, attempt: Try) -> None:
    attempt(what)
