"""Nodes are killed with all their processes; the dispatcher is on the head node, which stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_none_is_lost_and_none_begins_twice(path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.nodes", path], cwd=ROOT, capture_output=True, text=True, timeout=500,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok" in done.stdout.split(), done.stdout + done.stderr
    print(done.stdout)
