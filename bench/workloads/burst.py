"""Small jobs that arrive while a long one occupies the queue: how long they wait."""

from __future__ import annotations

import time
from typing import Any

from .. import work
from ..calls import Call, call

_SECONDS = 0.1


def step(number: int, seconds: float) -> int:
    """Sleep for some seconds, and return the number."""
    time.sleep(seconds)
    return number


class Workload(work.Workload):
    """A nightly job is submitted at once; two more applications submit theirs while it runs."""

    name = "burst"
    about = (
        "a nightly job of 600 tasks holds the queue while two more applications submit 150 tasks each, a few at a time"
    )
    figures = (
        "queueing_p95:dashboard", "queueing_p50:dashboard", "queueing_p95:alerts", "queueing_p95:nightly", "makespan",
    )  # fmt: skip

    def calls(self, system: str) -> list[Call]:
        nightly, others, every, begin = (40, 6, 0.1, 0.3) if self.settings.quick else (600, 150, 0.15, 2.0)
        seconds = 0.05 if self.settings.quick else _SECONDS
        calls = [call(step, number, seconds, group="nightly", application="nightly") for number in range(nightly)]
        for offset, name in enumerate(("dashboard", "alerts")):
            for number in range(others):
                at = begin + (number + offset / 2) * every
                calls.append(call(step, number, seconds, group=name, application=name, at=at))
        return sorted(calls, key=lambda one: one.at)

    def check(self, calls: list[Call], values: list[Any]) -> None:
        work.expect(calls, values, lambda one: one.args[0])
