"""How often a process tries to reach a dispatcher that went away, and how long."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from raycelery.client.finding import NotInTime, left
from raycelery.errors import DispatcherGone, DispatcherUnreachable, VersionMismatch

logger = logging.getLogger(__name__)

#: Seconds until the second try; each further one takes twice as long, up to the other number.
FIRST_SECONDS = 0.05
MOST_SECONDS = 2.0
#: A connection that has lasted so long, in seconds, was a good one: the next is tried at once.
GOOD_SECONDS = 5.0


class Reconnecting:
    """Paces the tries of one process; each pause is a little shorter or longer, so that many do not come at once.

    Arguments:
        seconds: to go on trying for.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._pause = 0.0
        self._connected = 0.0

    def run(self, connect: Callable[[float | None], None], wanted_by: float | None) -> None:
        """Connect, again and again until it succeeds.

        Arguments:
            connect: does it, by a time.
            wanted_by: that time, by ``time.monotonic``; None: there is none.

        Raises:
            NotInTime: it has not by then.
            DispatcherUnreachable: it does not within that time, or there is no such dispatcher any more.
        """
        deadline = time.monotonic() + self.seconds
        if time.monotonic() - self._connected > GOOD_SECONDS:
            self._pause = 0.0
        while True:
            pause, most = self._pause * random.uniform(0.5, 1.0), left(wanted_by)
            time.sleep(pause if most is None else min(pause, most))
            self._pause = min(MOST_SECONDS, max(FIRST_SECONDS, 2 * self._pause))
            try:
                connect(wanted_by)
            except (DispatcherGone, NotInTime, VersionMismatch):
                raise
            except DispatcherUnreachable as exc:
                if time.monotonic() > deadline:
                    raise
                logger.info("not connected to the dispatcher yet: %s", exc)
            else:
                self._connected = time.monotonic()
                return
