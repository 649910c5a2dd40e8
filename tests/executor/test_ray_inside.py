"""Ray work inside tasks and beside them, which needs the CPUs that tasks hold; on a Ray that no one else uses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import support
from tests.executor import inside

Try = Callable[[str], None]


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    """Try something in a program with a Ray of its own."""
    errors = Path(tmp_path_factory.mktemp("inside"), "errors")
    with errors.open("w") as written:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.executor.inside"],
            cwd=support.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=written, text=True,
        )  # fmt: skip
    assert program.stdin is not None

    def attempt(what: str) -> None:
        print(what, file=program.stdin, flush=True)
        said = next((line for line in program.stdout or () if line in ("passed\n", "failed\n")), "ended")
        assert said == "passed\n", errors.read_text()

    yield attempt
    program.stdin.close()
    program.wait(60)


@pytest.mark.parametrize("what", inside.ALONE)
def test_ray_work_of_tasks_that_hold_all_cpus(what: str, attempt: Try) -> None:
    attempt(f"alone {what}")


@pytest.mark.parametrize("what", inside.BESIDE)
def test_ray_work_finds_room_beside_a_backlog(what: str, attempt: Try) -> None:
    attempt(f"beside {what}")
