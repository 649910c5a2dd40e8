"""Wakes the worker's event loop (kombu's ``Hub``) from another thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any


class HubWaker:
    """Has a function called by the event loop. Where there is no event loop, the thread that wakes calls it.

    Arguments:
        call: the function.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        #: Set once by the worker's main thread, before the event loop begins.
        self._hub: Any = None
        #: Guards the pipe: it is not closed while another thread writes to it.
        self._lock = threading.Lock()
        #: Reading and writing end of the pipe; None once closed.
        self._pipe: tuple[int, int] | None = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)

    def register(self, hub: Any) -> None:
        """Use an event loop from now on; called again after Celery has reset it."""
        if self._pipe is not None:
            self._hub = hub
            hub.add_reader(self._pipe[0], self._on_readable)

    def wake(self) -> None:
        """Have the function called soon; may be called from any thread."""
        if self._hub is None:
            self._call()
            return
        with self._lock:
            if self._pipe is not None:
                try:
                    os.write(self._pipe[1], b"x")
                except BlockingIOError:
                    pass  # the pipe is full, so the event loop will read from it

    def _on_readable(self) -> None:
        if self._pipe is not None:
            try:
                os.read(self._pipe[0], 65_536)
            except BlockingIOError:
                pass
        self._call()

    def close(self) -> None:
        """Close the pipe; ``wake`` does nothing from then on where there is an event loop."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            if self._hub is not None:
                self._hub.remove_reader(pipe[0])
            for end in pipe:
                os.close(end)
