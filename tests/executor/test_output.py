"""What tasks print and log reaches whoever submitted them, and nobody else; all of it is in files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from raycelery.logs import files
from tests import support
from tests.executor import talking
from tests.support import until

SECONDS = 60

PROGRAM = """
from celery import chord
from tests.executor.talking import again, calls, fails, gives, last, runs, same, says

says.delay("second").get(timeout=60)
runs.delay("second").get(timeout=60)
calls.delay("second").get(timeout=60)
[one.get(timeout=60) for one in [same.delay(number) for number in range(12)]]
again.delay("second").get(timeout=60)
chord([gives.s(1), gives.s(2)], last.s("second")).apply_async().get(timeout=60)
failed = fails.delay("second")
failed.get(timeout=60, propagate=False)
print(failed.id)
"""


def program(folder: Path, address: str, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=100, check=True,
        env={**os.environ, "PYTHONPATH": str(support.ROOT), "RAY_ADDRESS": address, **env},
    )  # fmt: skip


def raycelery(address: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "raycelery", *arguments]


@pytest.fixture(scope="module")
def second(ray_session: support.RaySession, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """What a program sees of its tasks, on a cluster where another one created the dispatcher: id of a task that
    failed, standard error, and what the other sees."""
    folder = tmp_path_factory.mktemp("second")
    stderr, kept = sys.stderr, folder / "first.log"
    with kept.open("w") as sys.stderr:
        try:
            talking.says.delay("first").get(timeout=SECONDS)
            done = program(folder, ray_session.address, PROGRAM)
            until(lambda: "logged first" in kept.read_text(), say=lambda: f"not in {kept.read_text()!r}")
        finally:
            sys.stderr.flush()
            sys.stderr = stderr
    assert re.fullmatch(r"talking is imported\n[-0-9a-f]{36}\n", done.stdout), "nothing but the program's own words"
    return done.stdout.split()[-1], done.stderr, kept.read_text()


def count(text: str, *parts: str) -> int:
    return sum(all(part in line for part in parts) for line in text.splitlines())


def test_each_program_sees_what_its_own_tasks_say(second: tuple[str, str, str]) -> None:
    _, seen, first = second
    for words in ("printed", "red", "all of it", "echoed"):
        assert count(seen, f"{words} second") == 1, seen
    for words in ("logged", "error"):
        assert count(seen, f"{words} second") == 1, seen
    assert count(seen, "INFO", "logged second") == count(seen, "ERROR", "error second") == 1
    assert "half of it" not in seen, "progress bars write over themselves"
    assert count(first, "printed first") == count(first, "logged first") == 1
    assert "second" not in first
    assert "first" not in seen


def test_what_its_tasks_call_counts_as_its_own(second: tuple[str, str, str]) -> None:
    _, seen, _ = second
    assert count(seen, "printed below second") == 1, seen
    assert count(seen, "last second") == 1, seen


def test_equal_lines_of_several_tasks_are_several_lines(second: tuple[str, str, str]) -> None:
    lines = [line for line in second[1].splitlines() if "the same line" in line]
    assert len(set(lines)) == len(lines) == 12, "each names its task"


def test_retries_and_errors_are_logged(second: tuple[str, str, str]) -> None:
    task_id, seen, _ = second
    assert count(seen, "INFO", "Retry in", "again second") == 1, seen
    assert count(seen, "ERROR", task_id, "raised unexpected", "ValueError('fails second')") == 1, seen
    assert count(seen, f"fails {task_id[:8]}", 'raise ValueError(f"fails {word}")') == 1, "the traceback names its task"
    assert "succeeded" not in seen


def test_no_colours_where_there_is_no_terminal(second: tuple[str, str, str], ray_session: support.RaySession) -> None:
    assert "\x1b" not in second[1]
    files = list(ray_session.temp_dir.glob("session_2*/logs/raycelery-talking-*.log"))
    assert any("red second" in path.read_text() for path in files)
    assert not any("\x1b" in path.read_text() for path in files)


def test_nothing_is_shown_where_that_is_chosen(ray_session: support.RaySession, tmp_path: Path) -> None:
    done = program(
        tmp_path,
        ray_session.address,
        """
        from tests.executor.talking import app, says

        app.conf.ray_init = {"log_to_driver": False}
        says.delay("unseen").get(timeout=60)
        """,
    )
    assert "unseen" not in done.stderr + done.stdout
    files = list(ray_session.temp_dir.glob("session_2*/logs/raycelery-talking-*.log"))
    assert any("printed unseen" in path.read_text() for path in files)


def test_the_command_shows_a_task(second: tuple[str, str, str], ray_session: support.RaySession) -> None:
    done = subprocess.run(
        raycelery(ray_session.address, "logs", second[0]), capture_output=True, text=True, timeout=100, check=True,
        env={**os.environ, "RAY_ADDRESS": ray_session.address},
    )  # fmt: skip
    first, *rest = done.stdout.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR Task .* raised unexpected", first)
    assert all("ERROR" in line for line in rest)
    assert rest[-1].endswith("ValueError: fails second"), done.stdout


def test_the_command_follows_an_application(ray_session: support.RaySession, tmp_path: Path) -> None:
    before = talking.says.delay("before")
    before.get(timeout=SECONDS)
    log = tmp_path / "followed"
    with log.open("wb") as out:
        process = subprocess.Popen(
            raycelery(ray_session.address, "logs", "-A", "tests.executor.talking", "-f", "-n", "1000"), stdout=out,
            env={**os.environ, "RAY_ADDRESS": ray_session.address, "PYTHONUNBUFFERED": "1"}, cwd=support.ROOT,
        )  # fmt: skip
    try:
        until(lambda: "printed before" in log.read_text(), SECONDS)
        later = talking.says.delay("after")
        later.get(timeout=SECONDS)
        until(lambda: count(log.read_text(), later.id[:8], "error after"), SECONDS, log.read_text)
    finally:
        support.stop(process)
    seen = log.read_text()
    assert count(seen, f" - tests.executor.talking.says[{before.id[:8]}] printed before") == 1, "once"
    assert count(seen, f"says[{later.id[:8]}]", "printed after") == 1
    assert not any(line.startswith("talking is imported") for line in seen.splitlines()), "only tasks' lines"


def test_the_command_follows_a_task_to_its_end(ray_session: support.RaySession) -> None:
    waiting = talking.says.apply_async(("followed",), countdown=3)
    done = subprocess.run(
        raycelery(ray_session.address, "logs", "-f", waiting.id), capture_output=True, text=True, timeout=100,
        check=True, env={**os.environ, "RAY_ADDRESS": ray_session.address},
    )  # fmt: skip
    assert count(done.stdout, "printed followed") == count(done.stdout, "error followed") == 1, done.stdout


def test_a_task_that_says_much_slows_nobody_down(
    ray_session: support.RaySession, capfd: pytest.CaptureFixture[str]
) -> None:
    result = talking.many.delay(20_000)
    result.get(timeout=SECONDS)
    assert talking.gives.delay(1).get(timeout=SECONDS) == 1
    files = list(ray_session.temp_dir.glob("session_2*/logs/raycelery-talking-*.log"))
    assert sum(path.read_text().count(f"[{result.id}] many ") for path in files) == 20_000


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    """Others may write to Ray's folders."""
    (tmp_path / "precious").write_text("as it was")
    log = tmp_path / "raycelery-shop-1.log"
    log.symlink_to(tmp_path / "precious")
    with files.opened(log) as file:
        file.write(b"printed\n")
    with files.opened(log) as file:
        file.write(b"more\n")
    assert log.read_bytes() == b"printed\nmore\n"
    assert (tmp_path / "precious").read_text() == "as it was"
