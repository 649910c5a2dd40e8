"""How a process ends whose Ray ends with it: it waits for the tasks that it submitted, and says so."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol.questions import Drained, Left

if TYPE_CHECKING:
    from raycelery.client.connection import Client

logger = logging.getLogger(__name__)

#: Seconds that a process may wait without a word, and names of tasks that it tells.
_SILENT_SECONDS = 1.0
#: Seconds that callbacks of the last results may take.
_CALLBACK_SECONDS = 10.0
_MOST_NAMES = 3
#: What is to be finished once nothing is left to be done, in at most so many seconds: callbacks of results.
finishers: list[Callable[[float], object]] = []
#: Set where Ctrl-C ended the wait.
_interrupted = threading.Event()


def wait(client: Client) -> None:
    """Wait until nothing is left to be done, or Ctrl-C."""
    try:
        left = client.call(Left())
        if left["pending"] and not _drained(client):
            _say(f"waiting for {_what(left)}; the program ends after that; Ctrl-C ends it now and drops them")
            client.call(Drained(), timeout=None)
        for finish in finishers:
            finish(_CALLBACK_SECONDS)
    except KeyboardInterrupt:
        _interrupted.set()
        _say("the program ends; its unfinished tasks are dropped")
    except DispatcherUnreachable as exc:
        logger.warning("could not wait for submitted tasks: %s", exc)


def _drained(client: Client) -> bool:
    try:
        client.call(Drained(), timeout=_SILENT_SECONDS)
    except DispatcherUnreachable:
        if not client.connected:
            raise
        return False
    return True


def _say(text: str) -> None:
    # Not by way of logging: a program that configured none, or a file, would seem to hang.
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a standard error that is closed
        sys.stderr.write(f"raycelery: {text}\n")
        sys.stderr.flush()


def _what(left: dict[str, Any]) -> str:
    pending, running, scheduled = left["pending"], left["running"], left["scheduled"]
    parts = [f"{running:,} running"] if running else []
    waiting = pending - running - scheduled
    if waiting > 0:
        parts.append(f"{waiting:,} waiting" + (f" ({left['why']})" if left["why"] else ""))
    if scheduled:
        due = _span(left["due"] - time.time())
        parts.append(f"1 due in {due}" if scheduled == 1 else f"{scheduled:,} scheduled, the first due in {due}")
    names = left["tasks"][:_MOST_NAMES] + (["..."] if len(left["tasks"]) > _MOST_NAMES else [])
    return f"{pending:,} task{'' if pending == 1 else 's'}, {', '.join(parts)}: {', '.join(names)}"


def _span(seconds: float) -> str:
    seconds = max(0, round(seconds))
    parts = [(seconds // 3600, "h"), (seconds % 3600 // 60, "min"), (seconds % 60, "s")]
    told = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0 s"


@atexit.register
def _end_as_interrupted() -> None:
    """End by SIGINT, as Python itself does after an unhandled Ctrl-C: shells see status 130, and end their loops.

    Registered when this module is imported, it runs after what was registered later; logging, which was there before,
    is ended here.
    """
    if not _interrupted.is_set():
        return
    ray = sys.modules.get("ray")
    if ray is not None:
        ray.shutdown()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
