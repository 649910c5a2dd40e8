"""The figures of `bench/micro/figures.py`. Wrong results fail; missed targets fail with `--check`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from raycelery.protocol import questions

from . import functions
from .figures import FIGURES
from .replay import clock, replay
from .systems import OURS, System

pytestmark = pytest.mark.timeout(1200)

Samples = dict[str, list[float]]
Alternate = Callable[..., Samples]
Turns = Callable[[str, Callable[[System, int, int], float]], Samples]


@pytest.fixture
def turns(alternate: Alternate, systems: dict[str, System]) -> Turns:
    """Return a function that measures a figure with warm systems."""

    def run(key: str, measure: Callable[[System, int, int], float]) -> Samples:
        return alternate(
            key,
            lambda name, count, number: measure(systems[name], count, number),
            warm_up=lambda name: systems[name].warm_up(),
        )

    return run


def _rows(key: str, group: str) -> Callable[[Any], Any]:
    """Parametrize a test to give one row per system in pytest-benchmark's table."""

    def mark(test: Any) -> Any:
        systems = pytest.mark.parametrize("system", list(FIGURES[key].counts), ids=lambda name: name.replace(" ", "_"))
        return systems(pytest.mark.benchmark(group=group, timer=clock)(test))

    return mark


@_rows("start", "import to first result less ray.init, fresh process")
def test_start(system: str, benchmark: Any, alternate: Alternate, cold_start: Callable[[str], float]) -> None:
    replay(benchmark, alternate("start", lambda name, count, number: cold_start(name))[system])


@_rows("throughput", "per no-op, submitted and taken together")
def test_throughput(system: str, benchmark: Any, turns: Turns) -> None:
    replay(benchmark, turns("throughput", lambda runner, count, number: runner.throughput(count))[system])


@_rows("round_trip", "per no-op, one by one")
def test_round_trip(system: str, benchmark: Any, turns: Turns) -> None:
    replay(benchmark, turns("round_trip", lambda runner, count, number: runner.round_trip(count))[system])


@_rows("burst", "caller's time per call")
def test_burst(system: str, benchmark: Any, turns: Turns) -> None:
    replay(benchmark, turns("burst", lambda runner, count, number: runner.burst(count))[system])


@_rows("chord", "chord")
def test_chord(system: str, benchmark: Any, turns: Turns) -> None:
    replay(benchmark, turns("chord", lambda runner, count, number: runner.chord(count))[system])


@_rows("frames", "per task with the same 20 MB frame")
def test_frames(system: str, benchmark: Any, turns: Turns) -> None:
    # A different frame each round, as raycelery would reuse the last one.
    samples = turns("frames", lambda runner, count, number: runner.frames(count, functions.frame_of(seed=number)))
    replay(benchmark, samples[system])


@pytest.mark.usefixtures("ray_session")
def test_memory(alternate: Alternate) -> None:
    from .tasks_ray import stuck, waiting

    def per_message(name: str, count: int, number: int) -> float:
        assert name == OURS

        def look() -> tuple[int, int]:
            stats = waiting.client.call(questions.Stats())
            return stats["pending"], stats["rss"]

        for value in range(100):
            stuck.delay(value)
        pending_before, before = look()
        for value in range(count):
            stuck.delay(value)
        pending, after = look()
        # The rate limit lets one of them run.
        assert pending_before + count - 1 <= pending <= pending_before + count
        waiting.client.call(questions.Purge())
        deadline = time.monotonic() + 60
        while look()[0] > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        return (after - before) / count

    assert alternate("memory", per_message)[OURS]
