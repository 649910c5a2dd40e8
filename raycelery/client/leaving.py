"""How a process ends: it sees that the dispatcher has what it submitted; one whose Ray ends with it waits for that."""

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
from typing import TYPE_CHECKING, Any, NoReturn

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
#: Seconds that a dispatcher may take to come back and to take what a process that ends has for it.
HAND_OVER_SECONDS = 30.0
#: What is to be finished once nothing is left to be done, in at most so many seconds: callbacks of results.
finishers: list[Callable[[float], object]] = []
#: Set where Ctrl-C ended the wait; where tasks that were called may be lost.
_interrupted = threading.Event()
_failed = threading.Event()
#: Whether this process was forked from one that uses Ray; the status that ``sys.exit`` was given then.
_forked = False
_status: list[object] = [0]


def wait(client: Client) -> None:
    """Wait until nothing is left to be done, or Ctrl-C."""
    try:
        left = client.call(Left())
        if left["pending"] and not _drained(client):
            say(f"waiting for {_what(left)}; the program ends after that; Ctrl-C ends it now and drops them")
            client.call(Drained(), timeout=None)
        for finish in finishers:
            finish(_CALLBACK_SECONDS)
    except KeyboardInterrupt:
        _interrupted.set()
        say("the program ends; its unfinished tasks are dropped")
    except DispatcherUnreachable as exc:
        _failed.set()
        say(f"the program ends, and tasks that it called may be unfinished, which end with it: {exc}")


def hand_over(client: Client, *, connect: bool = True, patient: bool = True) -> bool:
    """See that the dispatcher has what was submitted; say so where it is not known, and have the process end so.

    Arguments:
        client: the connection.
        connect: whether it can connect again.
        patient: whether the process has time to wait for a dispatcher that is restarted.

    Returns:
        whether it has.
    """
    try:
        try:
            client.hand_over(_SILENT_SECONDS, connect=connect)
        except DispatcherUnreachable:
            if not (patient and connect):
                raise
            say(f"waiting for the dispatcher to take {_tasks(client)}; Ctrl-C ends the program now")
            client.hand_over(HAND_OVER_SECONDS, connect=connect)
        return True
    except KeyboardInterrupt:
        _interrupted.set()
        say(f"the program ends; {_tasks(client)} that it called may never run")
    except DispatcherUnreachable as exc:
        if patient:  # else it ends as it was made to end
            _failed.set()
        told = f"{_tasks(client)} that this program called may never run"
        say(f"{told}, as the dispatcher has not confirmed to have them: {exc}")
    return False


def leave_ray_to_parent() -> None:
    """Have a forked process leave its parent's Ray alone, with which it could not end.

    Ray's exit hook waits for threads that only the parent has, or ends the parent's Ray. What Ray has in C++ hangs or
    crashes when the process ends; so it ends at once when Python's hooks have run.
    """
    import ray

    global _forked
    _forked = True
    atexit.unregister(ray.shutdown)
    leave = sys.exit

    def exit_with(status: object = None) -> NoReturn:
        # There is no other way to know it in an exit hook.
        _status.append(status)
        leave(status)  # type: ignore[arg-type]

    sys.exit = exit_with


def _number(status: object) -> int:
    return 0 if status is None else status & 0xFF if isinstance(status, int) else 1


def _tasks(client: Client) -> str:
    number = client.unconfirmed()
    return f"{number:,} task{'' if number == 1 else 's'}"


def end_now(status: int) -> None:
    """End the process at once, with all that was written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def _drained(client: Client) -> bool:
    try:
        client.call(Drained(), timeout=_SILENT_SECONDS)
    except DispatcherUnreachable:
        if not client.connected:
            raise
        return False
    return True


def fail(text: str) -> None:
    """Say why the program has failed, and have it end with status 1."""
    _failed.set()
    say(text)


def say(text: str) -> None:
    """Tell whoever watches the program something."""
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
def _end_as_it_went() -> None:
    """End by SIGINT, as Python itself does after an unhandled Ctrl-C: shells see status 130, and end their loops.

    Where tasks may be lost, the status is 1. Registered when this module is imported, it runs after what was registered
    later; logging, which was there before, is ended here.
    """
    if not _interrupted.is_set() and not _failed.is_set() and not _forked:
        return
    ray = sys.modules.get("ray")
    if ray is not None and not _forked:
        ray.shutdown()
    logging.shutdown()
    if not _interrupted.is_set():
        failed = _failed.is_set() or getattr(sys, "last_type", None) is not None
        end_now(1 if failed else _number(_status[-1]))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
