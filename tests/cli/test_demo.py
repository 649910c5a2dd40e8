"""``raycelery demo`` as a newcomer runs it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ENVIRONMENT, short_directory

pytestmark = pytest.mark.timeout(300)
COMMAND = [sys.executable, "-m", "raycelery", "demo"]


def demo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    with short_directory("rc-demo-") as ray_directory:
        env = {**os.environ, **ENVIRONMENT, "RAY_TMPDIR": str(ray_directory)}
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=250,
            stdin=subprocess.DEVNULL,
        )


def test_it_trains_real_zones_and_writes_their_forecasts(tmp_path: Path) -> None:
    done = demo("--zones", "1", "--json", "--output", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["models"] == summary["of"] == 12
    assert summary["failed"] == 0
    assert 0 < summary["model_wape"] < 1
    assert 0 < summary["baseline_wape"] < 1
    assert "from raycelery import Celery" in done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 7
    assert {row["zone"] for row in rows} == {rows[0]["zone"]}


def test_ctrl_c_keeps_what_was_finished(tmp_path: Path) -> None:
    with short_directory("rc-demo-") as ray_directory:
        env = {**os.environ, **ENVIRONMENT, "RAY_TMPDIR": str(ray_directory), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [*COMMAND, "--zones", "60", "--output", "out.csv"],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("finished ") and int(line.split()[1]) >= 3:
                process.send_signal(signal.SIGINT)
                break
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Interrupted:" in output
    assert "Traceback" not in output + errors
    with (tmp_path / "out.csv").open() as file:
        assert len(list(csv.DictReader(file))) >= 3 * 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.txt"], "ends in .csv or .parquet"),
        (["--output", "nowhere/x.csv"], "there is no folder"),
        (["--output", "/dev/null/x.csv"], "it cannot be written: Not a directory"),
        (["--zones", "0"], "--zones"),
        (["--num-cpu", "2"], "--num-cpus"),
        (["--address", "127.0.0.1:1", "--zones", "1"], "no Ray cluster answers"),
    ],
)
def test_wrong_use_is_one_clear_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = demo(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
