"""What nobody uses costs nothing: while there is nothing to be done, nothing wakes up to look."""

from __future__ import annotations

import os
import subprocess
import sys

from raycelery.control import applications
from tests import scripts
from tests.support import ROOT, RaySession, until


def test_a_dispatcher_and_an_executor_that_have_nothing_to_do_sleep() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.dispatcher.idling"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


SHORT = """
    from raycelery import Celery

    app = Celery("short", ray_idle_seconds=0.5, ray_dispatcher_idle_seconds=1.0)

    @app.task
    def add(x, y):
        return x + y
"""


def test_a_dispatcher_that_nobody_uses_ends_and_the_next_call_goes_on(
    ray_session: RaySession, run: scripts.Run
) -> None:
    first = """
        from pathlib import Path
        from short import add, app

        result = add.delay(1, 2)
        assert result.get(timeout=60) == 3
        app.control.rate_limit(add.name, "100/s")
        later = add.apply_async((3, 4), countdown=3)
        Path("ids").write_text(f"{result.id} {later.id}")
        print("ok")
    """
    run(first, short=SHORT)
    assert "short" in applications.names(), "a message waits for its time"
    until(lambda: "short" not in applications.names(), 60, applications.names)
    second = """
        from pathlib import Path
        from short import add, app
        from raycelery.protocol import questions

        assert [app.AsyncResult(one).get(timeout=60) for one in Path("ids").read_text().split()] == [3, 7]
        assert app.client.call(questions.Overview())["rates"] == {add.name: 100.0}
        assert add.delay(5, 6).get(timeout=60) == 11
        print("ok")
    """
    run(second, short=SHORT)
