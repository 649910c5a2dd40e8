"""What an executor has begun is known after its end, and nothing more begins once somebody has asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raycelery.executor import begun
from raycelery.executor.begun import OLD_SECONDS, BegunFile, last_begun

PROGRAM = """
import os, sys, time
from pathlib import Path
from raycelery.executor.begun import BegunFile

file = BegunFile(Path(sys.argv[1]))
# A child that a task has forked, and that outlives it.
if sys.argv[2:] and not os.fork():
    os.close(1)
    time.sleep(5)
    os._exit(0)
file.begin(41)
file.begin(7)
print(file.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "begun"


@pytest.fixture(params=[(), ("child",)], ids=["alone", "with a child"])
def process(request: pytest.FixtureRequest, folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), *request.param], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_of_one_that_was_killed(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    path = process.stdout.readline().strip()
    process.kill()
    process.wait()
    assert last_begun(path) == 7


def test_one_that_runs_is_ended_first(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert last_begun(process.stdout.readline().strip()) == 7
    assert process.wait(60) == -signal.SIGKILL


def test_one_that_begins_nothing_more_may_live_on(folder: Path) -> None:
    file = BegunFile(folder)
    file.begin(3)
    file.close()
    assert last_begun(file.path) == 3


def test_of_before_the_machine_went_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = BegunFile(folder)
    file.begin(3)
    file.close()
    monkeypatch.setattr(begun, "_start_of_machine", lambda: bytes(16))
    assert last_begun(file.path) is None, "the kernel may not have written it to the disk"


def test_where_nobody_can_tell(folder: Path) -> None:
    assert last_begun(str(folder / "missing")) is None


def test_old_files_are_removed(folder: Path, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    used = process.stdout.readline().strip()
    old = BegunFile(folder)
    old.close()
    then = time.time() - OLD_SECONDS - 1
    for path in (used, old.path):
        os.utime(path, (then, then))
    BegunFile(folder).close()
    assert not os.path.exists(old.path)
    assert os.path.exists(used), "its process runs"
