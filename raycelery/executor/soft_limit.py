"""Soft time limits: an exception in what runs, raised by a timer of the operating system.

See https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from celery.exceptions import SoftTimeLimitExceeded

from raycelery.client.connection import Client

#: Seconds until another try, where the limit is reached while a frame is sent.
_LATER = 0.005


@contextlib.contextmanager
def soft_limit(client: Client, seconds: float, on_limit: Callable[[float], None]) -> Iterator[None]:
    """Raise ``SoftTimeLimitExceeded`` in what is done within, if that takes too long; on the main thread only.

    Arguments:
        client: the executor's connection: the exception must not cut a frame in two.
        seconds: the limit.
        on_limit: called with it before the exception is raised.
    """

    def on_timer(signum: int, frame: FrameType | None) -> None:
        if client.sending:
            signal.setitimer(signal.ITIMER_REAL, _LATER)
            return
        on_limit(seconds)
        raise SoftTimeLimitExceeded(seconds)

    before = signal.signal(signal.SIGALRM, on_timer)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
