"""Wakes the worker's event loop from another thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any


class Waker:
    """Has something called in the event loop; where there is none, in the thread that wakes.

    Arguments:
        call: what to call.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._hub: Any = None
        self._ends: tuple[int, int] | None = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)

    def register(self, hub: Any) -> None:
        """Use an event loop of kombu's from now on, or again after it was reset."""
        if self._ends is not None:
            self._hub = hub
            hub.add_reader(self._ends[0], self._on_readable)

    def wake(self) -> None:
        """Have it called soon."""
        if self._hub is None:
            self._call()
            return
        with self._lock:
            if self._ends is not None:
                try:
                    os.write(self._ends[1], b"x")
                except BlockingIOError:
                    pass  # it is awake

    def _on_readable(self) -> None:
        if self._ends is not None:
            try:
                os.read(self._ends[0], 65_536)
            except BlockingIOError:
                pass
        self._call()

    def close(self) -> None:
        """Wake nobody any more."""
        with self._lock:
            ends, self._ends = self._ends, None
        if ends is not None:
            if self._hub is not None:
                self._hub.remove_reader(ends[0])
            for end in ends:
                os.close(end)
