"""A dispatcher that has lost its journal: what it does not know any more is not waited for without end."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable

from celery import states

from raycelery.client.inbox import Inbox
from raycelery.errors import DispatcherUnreachable, JournalLost
from raycelery.protocol.frames import Result
from raycelery.protocol.questions import Forgotten

logger = logging.getLogger(__name__)

#: Tasks that are asked about at a time.
_PORTION = 1000


class Epochs:
    """Notices that the dispatcher's journal is not the one that took this process's messages.

    Arguments:
        ask: asks the dispatcher.
        inbox: of the process.
        seconds: until those that the dispatcher does not know fail: other processes hand in again meanwhile what was
            not acknowledged to them, and a task's callers may be among them.
    """

    def __init__(self, ask: Callable[[Forgotten], list[str]], inbox: Inbox, seconds: float) -> None:
        self._ask = ask
        self._inbox = inbox
        self._seconds = seconds
        self._epoch: str | None = None

    def welcome(self, epoch: str) -> None:
        """Take the journal's name, which the dispatcher says at the beginning of each connection."""
        before, self._epoch = self._epoch, epoch
        if before not in (None, epoch):
            logger.error(
                "the dispatcher has lost its journal: tasks that it does not know in %g s (ray_reconnect_seconds) fail "
                "with JournalLost", self._seconds,
            )  # fmt: skip
            threading.Thread(target=self._look, name="raycelery-forgotten", daemon=True).start()

    def _look(self) -> None:
        time.sleep(self._seconds)
        ids = iter(self._inbox.expected())
        try:
            while portion := list(itertools.islice(ids, _PORTION)):
                forgotten = self._ask(Forgotten(portion))
                self._inbox.put(Result(task_id, states.FAILURE, _lost(task_id)) for task_id in forgotten)
        except DispatcherUnreachable as exc:
            logger.error("the dispatcher does not tell what it has forgotten: %s", exc)


def _lost(task_id: str) -> bytes:
    """Return the meta of a task of which nobody knows what became."""
    text = (
        "the dispatcher that had this task has lost its journal (ray_journal), and nobody knows whether it ran: call "
        "it again if it may run twice"
    )
    error = {"exc_type": JournalLost.__name__, "exc_message": [text], "exc_module": JournalLost.__module__}
    meta = {"status": states.FAILURE, "result": error, "traceback": None, "children": [], "task_id": task_id}
    return json.dumps(meta).encode()
