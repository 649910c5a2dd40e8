"""The applications of a cluster are listed and ended."""

from __future__ import annotations

import json
import subprocess
import sys

from raycelery import Celery
from raycelery.protocol import questions
from tests.control.processes import environment
from tests.support import ROOT, RaySession, until

SECONDS = 60
NAME = "needed-no-more"

app = Celery(NAME, set_as_current=False)


@app.task
def double(number: int) -> int:
    return 2 * number


def apps(session: RaySession, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raycelery", "apps", *arguments], cwd=ROOT, env=environment(session), text=True,
        capture_output=True, timeout=100, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_applications_are_listed_and_ended(ray_session: RaySession) -> None:
    assert double.delay(2).get(timeout=SECONDS) == 4
    later = double.apply_async((3,), countdown=3600)
    until(lambda: app.client.call(questions.Pending()) == 1)
    listed = json.loads(apps(ray_session, "--json").stdout)[NAME]
    assert (listed["pending"], listed["clients"], listed["beat"]) == (1, 1, False)
    shown = apps(ray_session).stdout
    assert "unfinished" in shown
    assert NAME in shown

    done = apps(ray_session, "--end", NAME)
    assert done.returncode == 1
    assert f"{NAME} is not ended: 1 of its messages are not finished; --force drops them" in done.stderr
    done = apps(ray_session, "--end", f"{NAME}s")
    assert done.returncode == 2
    assert f"there is no application '{NAME}s' here; known: " in done.stderr
    assert app.client.call(questions.Pending()) == 1

    done = apps(ray_session, "--end", NAME, "--force")
    assert done.returncode == 0, done.stderr
    assert NAME not in json.loads(apps(ray_session, "--json").stdout)
    # A program that uses it again begins anew: nothing is left of what was dropped.
    until(lambda: not app.session.client.connected or app.client.call(questions.Pending()) == 0)
    assert app.client.call(questions.Pending()) == 0
    assert later.state == "PENDING"
    assert double.delay(4).get(timeout=SECONDS) == 8
