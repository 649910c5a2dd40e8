"""What Ray changes in the process that starts or joins it, and should not: its streams, signals and threads."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

#: More than a ``struct sigaction`` takes on any system.
_SIGACTION_BYTES = 1024
#: How long Ray's node, and the agents that this waits for, may take to start, as Ray takes it from the environment: its
#: own 30 s are too few on a machine that is busy.
PATIENCE = {"RAY_raylet_start_wait_time_s": "90", "RAY_agent_register_timeout_ms": "90000"}
#: Set once SIGTERM has asked this process to end.
terminated = threading.Event()


@contextmanager
def prepared() -> Iterator[None]:
    """Let Ray start or join in here."""
    with _real_streams(), _own_handler():
        yield


def in_lasting_thread(start: Callable[[], Any]) -> None:
    """Call ``start`` in a thread that lasts as long as the process.

    Ray has Linux end its processes with the thread that began them, which in a web server may be that of one request.
    """
    if threading.current_thread() is threading.main_thread():
        start()
        return
    started: Future[None] = Future()

    def run() -> None:
        try:
            start()
        except BaseException as exc:  # raised where it is waited for
            started.set_exception(exc)
            return
        started.set_result(None)
        threading.Event().wait()

    threading.Thread(target=run, name="raycelery-ray", daemon=True).start()
    started.result()


@contextmanager
def _real_streams() -> Iterator[None]:
    """Give Ray streams with file descriptors: Celery's LoggingProxy, put in their place by a worker, has none."""
    before = sys.stdout, sys.stderr
    try:
        if not _has_descriptor(sys.stdout) and sys.__stdout__ is not None:
            sys.stdout = sys.__stdout__
        if not _has_descriptor(sys.stderr) and sys.__stderr__ is not None:
            sys.stderr = sys.__stderr__
        yield
    finally:
        sys.stdout, sys.stderr = before


def _has_descriptor(stream: Any) -> bool:
    try:
        return isinstance(stream.fileno(), int)
    except (AttributeError, OSError, ValueError):
        # pytest's capture and notebooks have none either, and Ray copes with those.
        return type(stream).__name__ != "LoggingProxy"


@contextmanager
def _own_handler() -> Iterator[None]:
    """Leave a process its own way to take SIGTERM: beat saves its schedule in it, a web server finishes its requests.

    Ray puts two in its place: one of Python's, where it is started in the main thread, and beneath that one of C++,
    which prints the stack of the process. A process that has none of its own ends as by ``sys.exit``: what it has
    buffered is handed over, and Ray's processes end with it.
    """
    before = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    action = ctypes.create_string_buffer(_SIGACTION_BYTES)
    sigaction = getattr(ctypes.CDLL(None), "sigaction", None) if sys.platform != "win32" else None
    if sigaction is not None:
        sigaction(int(signal.SIGTERM), None, action)
    try:
        yield
    finally:
        if in_main_thread and before is not None:
            signal.signal(signal.SIGTERM, _end if before == signal.SIG_DFL else before)
        elif sigaction is not None:
            # It is not Python's, or this is a thread in which Python sets none.
            sigaction(int(signal.SIGTERM), action, None)


def _end(number: int, frame: Any) -> None:
    terminated.set()
    sys.exit(128 + number)
