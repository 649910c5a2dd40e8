"""Celery's beat scheduler for applications on Ray: a beat that is killed and started again sends nothing twice.

What is due is sent along with a mark of it, both or neither. The schedule is saved after each of them; a beat that was
killed between the two finds the mark, and goes on from there.
See https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.beat import PersistentScheduler

from raycelery.protocol.operations import StoreValue
from raycelery.protocol.questions import GetValue

logger = logging.getLogger(__name__)

#: Seconds for which a beat may be down and still know what it has sent.
MARK_SECONDS = 86_400.0
#: Seconds that the dispatcher may take to confirm what it was sent.
HAND_OVER_SECONDS = 60.0


class BeatScheduler(PersistentScheduler):  # type: ignore[misc]
    """Celery's ``PersistentScheduler``; on an application in direct mode each run of an entry is sent once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Entries of which this process has sent one: what is saved of them is what was sent.
        self._known: set[str] = set()
        self._sending = False
        super().__init__(*args, **kwargs)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        if not getattr(self.app, "direct", False):
            return super().apply_async(entry, producer, advance, **kwargs)
        client, key = self.app.client, f"beat:{entry.name}:{entry.total_run_count}:{entry.last_run_at}".encode()
        if entry.name not in self._known and client.call(GetValue(key)) is not None:
            logger.info("%s is not sent again: it was, before this beat was started", entry.name)
            self._known.add(entry.name)
            self._do_sync()
            return None
        self._sending = True
        try:
            with client.together():
                client.store(StoreValue(key, b"1", MARK_SECONDS), now=False)
                sent = super().apply_async(entry, producer, advance, **kwargs)
            client.hand_over(HAND_OVER_SECONDS)
        finally:
            self._sending = False
        self._known.add(entry.name)
        if self.should_sync():
            self._do_sync()
        return sent

    def should_sync(self) -> bool:
        # Celery saves the schedule before what it has called has left this process.
        return not self._sending and bool(super().should_sync())
