"""Looks at an application that has nothing to do, alone on its Ray: those beside it may have questions to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from raycelery.protocol import questions
from tests import tuned
from tests.support import until

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


def main() -> None:
    app, half = tuned.north, tuned.north.tasks["tuned.half"]
    app.conf.ray_init = {"num_cpus": 2, "include_dashboard": False}
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


if __name__ == "__main__":
    main()
