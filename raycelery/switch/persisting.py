"""Moving messages goes on, however long a broker or a cluster is gone meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from kombu.exceptions import OperationalError

from raycelery.errors import DispatcherUnreachable, JournalFull, QueueFull
from raycelery.switch import broker

T = TypeVar("T")

#: Seconds until a broker or cluster that is gone is tried again, and between two looks where there was nothing to move.
PAUSE_SECONDS = 1.0


def persist(app: Any, move: Callable[[broker.Broker], T], say: Callable[[str], None], *, write: bool = False) -> T:
    """Connect with the project's broker and move messages, again and again until that ends by itself.

    Arguments:
        app: the application, in direct mode.
        move: moves what it can, and begins anew when it is called again.
        say: is told once what is waited for, and that it is back.
        write: whether messages are published.

    Returns:
        what ``move`` has returned.
    """
    errors = (OSError, OperationalError, *broker.connection(app, write=write).connection_errors)
    waiting = ""
    while True:
        try:
            with broker.opened(app, write=write) as found:
                if waiting:
                    say("it is back")
                waiting = ""
                return move(found)
        except (DispatcherUnreachable, QueueFull, JournalFull) as exc:
            why = f"Ray does not take part: {exc}"
        except errors as exc:
            why = f"the broker is out of reach: {exc}"
        if why != waiting:
            say(f"{why}; the messages wait")
            waiting = why
        time.sleep(PAUSE_SECONDS)
