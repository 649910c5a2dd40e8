"""Ends a dispatcher that nobody uses: the next call starts another, which goes on from the journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import ray

from raycelery.names import DISPATCHER_PREFIX, NAMESPACE

if TYPE_CHECKING:
    from raycelery.dispatcher.core import Core

logger = logging.getLogger(__name__)


class IdleEnd:
    """Looks for how long a dispatcher has had nothing to do.

    Messages that wait, also for their time, keep it, as do connections, executors and large values, which are in no
    journal. Results do not: they are in the journal.

    Arguments:
        name: of the application.
        seconds: for so long; None: it does not end.
        core: with its messages and large values.
        in_use: of which one with anything in it is use: connections, executors.
        close: has nobody connect any more.
    """

    def __init__(
        self,
        name: str,
        seconds: float | None,
        core: Core,
        in_use: tuple[Collection[Any], ...],
        close: Callable[[], None],
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._core = core
        self._in_use = in_use
        self._close = close
        self._used = time.monotonic()

    def due(self) -> float:
        """Return in how many seconds it is to be looked at again, at the latest."""
        return float("inf") if self._seconds is None else self._used + self._seconds - time.monotonic()

    def look(self) -> None:
        """End the dispatcher if it has had nothing to do for long; to be called regularly."""
        if self._seconds is None:
            return
        if any(self._in_use) or self._core.large_values or any(self._core.scheduler.view.unfinished()):
            self._used = time.monotonic()
        elif self.due() <= 0:
            self._end()

    def _end(self) -> None:
        logger.info("nobody has used it for %g s: it ends, and the next call starts it again", self._seconds)
        self._close()
        self._core.large_values.end()
        ray.kill(ray.get_actor(f"{DISPATCHER_PREFIX}{self._name}", namespace=NAMESPACE), no_restart=True)
