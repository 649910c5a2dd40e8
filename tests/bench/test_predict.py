"""`raycelery bench predict`: what it runs, how it judges; and, slow, whether right-sizing predicts rightly."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.calls import Call, Fleet
from bench.predict import Checked, table
from bench.turn import sized, warm_options
from bench.work import Settings
from raycelery.rightsize.predicting import Hosts, Prediction
from raycelery.rightsize.recommending import recommend
from tests.rightsize.made_up import many
from tests.support import ROOT

CALLS = [Call("tasks:train", (number,)) for number in range(100)]


def test_a_sample_is_spread_over_the_calls() -> None:
    calls, fleet = sized(CALLS, Fleet(2, cpus=2), Settings(2, sample=4))
    assert [call.args[0] for call in calls] == [12, 37, 62, 87]
    assert fleet == Fleet(2, cpus=2)
    assert len(sized(CALLS[:3], fleet, Settings(2, sample=50))[0]) == 3


def test_a_size_is_what_every_call_asks_for_and_workers_are_warmed_for_it() -> None:
    calls, fleet = sized(CALLS, Fleet(12, num_cpus=0.16, cpus=2), Settings(2, num_cpus=0.2, memory=7))
    assert {(call.num_cpus, call.memory) for call in calls} == {(0.2, 7)}
    assert (fleet.slots, fleet.num_cpus) == (10, 0.2)
    assert warm_options(calls, fleet) == {"num_cpus": 0.2, "memory": 7}
    assert warm_options([*CALLS, Call("tasks:other", num_cpus=2)], Fleet(2)) == {"num_cpus": 1.0}


def _checked(**fields: Any) -> Checked:
    given: dict[str, Any] = {
        "workload": "zones",
        "sizes": [recommend(many((0, 0), (0.2, 0.2)), Hosts(1, 2))],
        "tasks": 100,
        "predicted": Prediction(10.0, 0.9, 0.95, 2),
        "left": None,
        "makespan": 12.5,
        "utilisation": 0.75,
        "of_tasks": 0.7,
        "others": 0.0,
    }
    return Checked(**{**given, **fields})


def test_it_judges_by_what_others_left() -> None:
    assert _checked().off == (pytest.approx(-0.2), pytest.approx(0.2))
    shared = _checked(left=Prediction(12.5, 0.75, 0.9, 2), others=0.2)
    assert shared.off == (0, 0)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table([_checked(), shared]))
    text = console.export_text()
    assert "-20%" in text
    assert "…" not in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workload", ["zones", "warehouse"])
def test_right_sizing_predicts_makespan_and_utilisation_within_a_fifth(workload: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raycelery", "bench", "predict", "--workload", workload, "--within", "20"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=1700,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
