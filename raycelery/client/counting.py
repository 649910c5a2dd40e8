"""What becomes of the tasks of a program that was launched: a line now and then, and its exit status.

``raycelery submit`` asks for it by environment variables of the program, so that it is the same wherever that runs.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from raycelery.client import leaving
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol.questions import Stats

if TYPE_CHECKING:
    from raycelery.client.connection import Client

#: Seconds between two lines.
PROGRESS = "RAYCELERY_PROGRESS_SECONDS"
#: How many tasks may fail before the program has failed.
MAX_FAILURES = "RAYCELERY_MAX_FAILURES"


def of(client: Client) -> Counts | None:
    """Return the counts that this program was asked to watch; None: it was asked for none."""
    seconds, most = os.environ.get(PROGRESS), os.environ.get(MAX_FAILURES)
    if not (seconds or most):
        return None
    return Counts(client, None if not seconds else float(seconds), None if not most else int(most))


class Counts:
    """How many tasks of the application have ended since this program has connected.

    Arguments:
        client: the connection to its dispatcher.
        every: seconds between two lines; None: no lines.
        most: how many may fail; None: any number.
    """

    def __init__(self, client: Client, every: float | None, most: int | None) -> None:
        self._client, self._most, self._every = client, most, every
        self._before = self._ended(client.call(Stats()))
        self._told = ""
        self._over = threading.Event()
        if every is not None:
            threading.Thread(target=self._tell, args=(every,), name="raycelery-progress", daemon=True).start()

    def finish(self) -> None:
        """Tell how it has ended; have the program end with status 1 where too many tasks have failed."""
        self._over.set()
        failed = self._line(told=self._every is not None)
        if self._most is not None and failed > self._most:
            leaving.fail(f"{failed:,} tasks have failed, and at most {self._most:,} may (max_failures)")

    def _tell(self, every: float) -> None:
        while not self._over.wait(every):
            try:
                self._line()
            except DispatcherUnreachable:
                continue  # whoever waits for a result says so

    def _line(self, told: bool = True) -> int:
        """Tell the counts, if they are others than last time; return how many tasks have failed."""
        stats = self._client.call(Stats())
        ended = {name: count - self._before.get(name, 0) for name, count in self._ended(stats).items()}
        failed, succeeded = ended.pop("failed", 0), ended.pop("succeeded", 0)
        parts = {"done": succeeded, "running": stats["running"], "waiting": stats["waiting"], "failed": failed, **ended}
        line = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count or name in ("done", "failed"))
        if told and line != self._told:
            self._told = line
            leaving.say(f"tasks: {line}")
        return failed

    @staticmethod
    def _ended(stats: dict[str, Any]) -> dict[str, int]:
        whole: dict[str, int] = {}
        for outcomes in stats["outcomes"].values():
            for outcome, count in outcomes.items():
                whole[outcome] = whole.get(outcome, 0) + count
        return whole
