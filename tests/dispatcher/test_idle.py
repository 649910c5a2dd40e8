"""What nobody uses costs nothing: while there is nothing to be done, nothing wakes up to look."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raycelery.control import applications
from raycelery.protocol import questions
from tests import scripts, tuned
from tests.support import RaySession, until

#: Seconds for which a thread must not have woken up.
QUIET_SECONDS = 3.0
CALLS = 200


def cpu_seconds(pid: int) -> dict[int, float]:
    """Return the CPU time that each thread of a process has used."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {int(thread.name): int((thread / "schedstat").read_text().split()[0]) / 1e9 for thread in threads}


def working(pid: int, call: Callable[[], object]) -> int:
    """Return the thread of a process that does most of the work for a call."""
    before = cpu_seconds(pid)
    for _ in range(CALLS):
        call()
    used = {thread: seconds - before.get(thread, 0.0) for thread, seconds in cpu_seconds(pid).items()}
    return max(used, key=lambda thread: used[thread])


def wakeups(pid: int, thread: int) -> int:
    """Return how often a thread has gone to sleep since it began."""
    status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


@pytest.mark.usefixtures("ray_session")
def test_a_dispatcher_and_an_executor_that_have_nothing_to_do_sleep() -> None:
    app, half = tuned.north, tuned.north.tasks["tuned.half"]
    _, executor = half.delay(0).get(timeout=60)
    dispatcher = app.client.call(questions.Stats())["pid"]
    threads = [
        (dispatcher, working(dispatcher, lambda: app.client.call(questions.Pending()))),
        (executor, working(executor, lambda: half.delay(0).get(timeout=60))),
    ]

    def counted() -> list[int]:
        return [wakeups(pid, thread) for pid, thread in threads]

    seen, since = counted(), time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if (now := counted()) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > QUIET_SECONDS

    until(quiet, 30, "they keep waking up")


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
