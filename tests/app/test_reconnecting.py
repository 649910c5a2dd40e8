"""A dispatcher that went away is looked for in longer and longer pauses, for so long and no longer."""

from __future__ import annotations

import time

import pytest

from raycelery.client import reconnecting
from raycelery.client.finding import NotInTime
from raycelery.client.reconnecting import MOST_SECONDS, Reconnecting
from raycelery.errors import DispatcherGone, DispatcherUnreachable


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reconnecting, "time", clock)
    return clock


def unreachable(wanted_by: float | None) -> None:
    raise DispatcherUnreachable("as played")


def test_pauses_grow_and_end(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(DispatcherUnreachable):
        Reconnecting(60.0).run(unreachable, None)
    assert clock.slept[0] == 0.0, "the first try is at once"
    assert sorted(clock.slept[1:5]) == clock.slept[1:5]
    assert max(clock.slept) <= MOST_SECONDS
    assert 60.0 < clock.now - began < 60.0 + 2 * MOST_SECONDS
    assert len(clock.slept) < 100


def test_a_connection_that_does_not_last_is_no_reason_to_hurry(clock: Clock) -> None:
    tries = Reconnecting(60.0)
    for _ in range(20):
        tries.run(lambda wanted_by: None, None)
    assert clock.slept[-1] >= MOST_SECONDS / 2, "it was connected, and lost, twenty times in a row"
    clock.now += 60.0
    tries.run(lambda wanted_by: None, None)
    assert clock.slept[-1] == 0.0, "it was a good one"


@pytest.mark.parametrize("error", [DispatcherGone, NotInTime])
def test_what_is_not_tried_again(clock: Clock, error: type[DispatcherUnreachable]) -> None:
    tried = []

    def connect(wanted_by: float | None) -> None:
        tried.append(wanted_by)
        raise error("as played")

    with pytest.raises(error):
        Reconnecting(60.0).run(connect, time.monotonic() + 5.0)
    assert len(tried) == 1
