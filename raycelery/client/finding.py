"""Finding out where the dispatcher listens, also for those who have not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol.framing import Endpoint


class NotInTime(DispatcherUnreachable):
    """There was no connection before the time of who wanted it was over."""


def left(deadline: float | None) -> float | None:
    """Return how many seconds there are before a deadline by ``time.monotonic``; None: without end."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Finder:
    """Asks where the dispatcher listens; while it is restarted that takes long.

    Arguments:
        find: returns the endpoint, whenever that is.
    """

    def __init__(self, find: Callable[[], Endpoint]) -> None:
        self._find = find
        #: Guards ``_asked``: the question that is under way, whose answer is for all who wait.
        self._lock = threading.Lock()
        self._asked: futures.Future[Endpoint] | None = None

    def find(self, deadline: float | None) -> Endpoint:
        """Return the endpoint.

        Arguments:
            deadline: by ``time.monotonic``; None: as long as it takes.

        Raises:
            NotInTime: it was not known by then; the question stays under way.
            DispatcherUnreachable: there is no dispatcher.
        """
        with self._lock:
            asked = self._asked
            if asked is None and deadline is not None:
                asked = self._asked = futures.Future()
                threading.Thread(target=self._ask, args=(asked,), name="raycelery-finder", daemon=True).start()
        if asked is None:
            return self._find()
        try:
            return asked.result(left(deadline))
        except futures.TimeoutError as exc:
            raise NotInTime("the dispatcher is being restarted, or its node is busy: it was not found in time") from exc

    def _ask(self, asked: futures.Future[Endpoint]) -> None:
        try:
            found = self._find()
        except BaseException as exc:  # raised where it is waited for
            with self._lock:
                self._asked = None
            asked.set_exception(exc)
            return
        with self._lock:
            self._asked = None
        asked.set_result(found)
