"""The micro benchmarks' arithmetic; that they run, and that `--check` and nothing else minds the time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bench.micro.figures import AtMost, Board, Faster, Spread, Unit
from bench.micro.replay import clock, replay
from bench.micro.systems import ACTORS, CELERY, OURS
from tests.support import ROOT


def test_a_ratio_is_of_neighbouring_rounds() -> None:
    # The machine grew ten times slower after the first round; the ratio did not change.
    samples = {OURS: [1.0, 10.0, 10.0], CELERY: [4.0, 40.0, 50.0]}
    value = Faster(CELERY, 4).value(samples)
    assert value == Spread(4.0, 4.0, 5.0)
    assert Faster(CELERY, 4).met(value)
    assert not Faster(CELERY, 4.1).met(value)


def test_bounds_are_of_the_figure_or_of_its_difference() -> None:
    samples = {OURS: [5.0, 6.0, 7.0], ACTORS: [4.0, 5.5, 6.5]}
    assert AtMost(6.0).met(AtMost(6.0).value(samples))
    assert not AtMost(5.9).met(AtMost(5.9).value(samples))
    assert AtMost(0.5, more_than=ACTORS).value(samples) == Spread(0.5, 0.5, 1.0)


def test_seconds_are_shown_as_a_rate_with_its_own_lowest_and_highest() -> None:
    assert Unit("/s", rate=True).spread(Spread.of([0.1, 0.2, 0.5])) == "5 /s (2-10)"
    assert Unit("ms", 1e3).spread(Spread.of([0.0011, 0.0012, 0.25])) == "1.2 ms (1.1-250)"


def test_missed_targets_are_named() -> None:
    board = Board(samples={"burst": {OURS: [90e-6]}, "memory": {OURS: [1500.0]}})
    assert board.missed() == ["burst"]
    assert json.loads(json.dumps(board.report()))["figures"]["memory"]["targets"][0]["met"] is True


def test_measurements_are_played_back() -> None:
    class Fixture:
        def pedantic(self, target: Callable[[], None], rounds: int) -> None:
            times = [clock()]
            for _ in range(rounds):
                target()
                times.append(clock())
            self.seconds = [after - before for before, after in pairwise(times)]

    fixture = Fixture()
    replay(fixture, [1.0, 3.0, 2.0])
    assert fixture.seconds == pytest.approx([1.0, 3.0, 2.0])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_figures_are_measured_and_written(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "bench/micro", "--rounds", "1", "--scale", "0.02", "--output", str(output)],
        cwd=ROOT,
        check=True,
        timeout=600,
    )
    report = json.loads(output.read_text())
    assert set(report["figures"]) == {"start", "throughput", "round_trip", "burst", "chord", "frames", "memory"}
    assert all(figure["samples"][OURS] for figure in report["figures"].values())
