"""What became of tasks: counted by outcome wherever one looks, the last failures by error, and those once more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery.exceptions import NotRegistered, TaskRevokedError, WorkerLostError

from raycelery import Celery
from raycelery.protocol import questions
from tests import records
from tests.control import shop
from tests.control.processes import command, environment
from tests.support import RaySession, until

SECONDS = 60
pytestmark = pytest.mark.usefixtures("ray_session")


def outcomes() -> Counter[str]:
    return Counter(
        {
            f"{task.removeprefix('shop.')} {outcome}": count
            for task, counts in shop.app.client.call(questions.Overview())["outcomes"].items()
            for outcome, count in counts.items()
        }
    )


def test_what_became_of_tasks_is_told_apart(tmp_path: Path) -> None:
    before = outcomes()
    assert shop.add.delay(1, 2).get(timeout=SECONDS) == 3
    with pytest.raises(ValueError, match="code 7"):
        shop.fail.delay(7).get(timeout=SECONDS)
    assert shop.again.delay().get(timeout=SECONDS) == 1
    shop.refuse.delay()
    waiting = shop.add.apply_async((1, 2), countdown=3600)
    waiting.revoke()
    ended = shop.hold.delay(str(tmp_path / "ended"))
    records.wait_for_file(str(tmp_path / "ended"))
    ended.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        ended.get(timeout=SECONDS)
    slow = shop.hold.apply_async((str(tmp_path / "slow"),), time_limit=0.3)
    assert slow.get(timeout=SECONDS, propagate=False).__class__.__name__ == "TimeLimitExceeded"
    unknown = shop.app.send_task("shop.none")
    assert isinstance(unknown.get(timeout=SECONDS, propagate=False), NotRegistered)
    expected = {
        "add succeeded": 1, "fail failed": 1, "again retried": 1, "again succeeded": 1, "refuse rejected": 1,
        "add revoked": 1, "hold revoked": 1, "hold failed": 1, "none failed": 1,
    }  # fmt: skip
    until(lambda: outcomes() - before == Counter(expected), say=lambda: str(outcomes() - before))


def test_an_executor_that_dies_is_a_failure(ray_session: RaySession) -> None:
    before = outcomes()
    with pytest.raises(WorkerLostError):
        shop.die.delay().get(timeout=SECONDS)
    until(lambda: (outcomes() - before)["die failed"] == 1)
    said = command(ray_session, "raycelery", "failures", "-t", "shop.die")
    assert "WorkerLostError" in said


def _groups(session: RaySession, *arguments: str, status: int = 0) -> Any:
    return json.loads(command(session, "raycelery", "failures", "--json", *arguments, status=status))


def test_failures_are_grouped_by_error_and_run_again(ray_session: RaySession, tmp_path: Path) -> None:
    path = tmp_path / "data"
    results = [shop.read.delay(str(path), number) for number in range(5)]
    results.append(shop.read.apply_async((str(path), 5), expires=600, countdown=0.01))
    for result in results:
        with pytest.raises(LookupError):
            result.get(timeout=SECONDS)
    until(lambda: sum(g["count"] for g in _groups(ray_session, "-t", "shop.read")) == 6)
    [group] = _groups(ray_session, "-t", "shop.read")
    assert (group["error"], group["count"]) == ("LookupError", 6)
    assert group["place"].startswith(str(Path(shop.__file__)))
    assert group["place"].endswith("in read")
    assert {one["id"] for one in group["failures"]} == {result.id for result in results}
    assert "there is no" in group["traceback"]
    assert _groups(ray_session, "-t", "shop.read", "-e", "number 99*") == []
    said = command(ray_session, "raycelery", "failures", "-t", "shop.read")
    assert "LookupError: number" in said
    assert "Traceback" in command(ray_session, "raycelery", "failures", "-v", "-e", "LookupError")
    assert "LookupError: number" in command(ray_session, "raycelery", "status")

    path.write_text("there")
    assert "6 run again" in command(ray_session, "raycelery", "failures", "-t", "shop.read", "--retry")
    for number, result in enumerate(results):
        # What has failed is no result any more once its task runs again.
        result._cache = None
        assert result.get(timeout=SECONDS) == f"{number}: there"
    assert _groups(ray_session, "-t", "shop.read") == []
    assert "no failures" in command(ray_session, "raycelery", "failures", "-t", "shop.read")


def test_a_retry_begins_anew_with_its_retries(ray_session: RaySession, tmp_path: Path) -> None:
    path = tmp_path / "tries"
    result = shop.stubborn.delay(str(path))
    with pytest.raises(ValueError, match="try 2"):
        result.get(timeout=SECONDS)
    until(lambda: _groups(ray_session, "-t", "shop.stubborn"))
    command(ray_session, "raycelery", "failures", "-t", "shop.stubborn", "--retry")
    result._cache = None
    assert result.get(timeout=SECONDS) == "try 4"


def test_a_retry_runs_the_release_that_it_is_asked_from(ray_session: RaySession, tmp_path: Path) -> None:
    for release, body in (("v1", "raise ValueError('broken')"), ("v2", "return 'mended'")):
        (tmp_path / release).mkdir()
        (tmp_path / release / "released.py").write_text(
            f"from raycelery import Celery\napp = Celery('released')\n\n\n@app.task\ndef work():\n    {body}\n"
        )

    def python(release: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path / release, env=environment(ray_session), text=True,
            capture_output=True, timeout=100, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import released; r = released.work.delay(); r.get(timeout=60, propagate=False); print(r.id)"
    task_id = python("v1", "-c", code).split()[-1]
    assert "1 run again" in python("v2", "-m", "raycelery", "failures", "-A", "released", "--retry")
    assert Celery("released", set_as_current=False).AsyncResult(task_id).get(timeout=SECONDS) == "mended"


def test_what_large_arguments_are_gone_for_cannot_be_retried(ray_session: RaySession) -> None:
    result = shop.fail.delay(np.zeros(20_000))
    result.get(timeout=SECONDS, propagate=False)
    until(lambda: [g for g in _groups(ray_session, "-t", "shop.fail") if g["failures"][0]["id"] == result.id])
    # A process keeps only what it sent last; what waits refers to nothing of this.
    for number in range(18):
        assert shop.length.delay(np.full(20_000, number)).get(timeout=SECONDS) == 20_000
    said = command(ray_session, "raycelery", "failures", "-t", "shop.fail", "-e", "code [[]0.*", "--retry", status=1)
    assert "1 cannot: their large arguments are gone" in said
