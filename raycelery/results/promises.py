"""Callbacks of results: they are called when the result comes, whether or not anybody waits for it.

Celery's promises (``then``, ``on_ready``, those of groups), which on Celery's own backends are fulfilled while somebody
reads results. See https://docs.celeryq.dev/en/stable/reference/celery.result.html and https://vine.readthedocs.io.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import vine

from raycelery.client import leaving
from raycelery.client.waiting import Waiting
from raycelery.errors import DispatcherUnreachable

logger = logging.getLogger(__name__)

#: Guards the callbacks of promises and the counts of barriers: of the threads of a process any may read a result.
#: Nothing but these is done under it.
_lock = threading.RLock()
_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


class ReadyPromise(vine.promise):  # type: ignore[misc]
    """The ``on_ready`` of a result, to which any thread may add callbacks, and which any may fulfil."""

    __slots__ = ()

    def note(self, callback: Any, on_error: Any = None) -> Any:
        """Have ``callback`` called when the result is there, without listening for that."""
        with _lock:
            if not self.ready:
                return super().then(callback, on_error)
        return super().then(callback, on_error)

    def then(self, callback: Any, on_error: Any = None) -> Any:
        """Have ``callback`` called when the result is there."""
        noted = self.note(callback, on_error)
        fulfilled = self.fun()
        if fulfilled is not None and not self.ready:
            result = fulfilled.__self__
            result.backend.listen(result)
        return noted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            if self.ready or self.cancelled:
                return None
            first, more = self._svpending, self._lvpending  # type: ignore[has-type]
            callbacks = [first] if first is not None else list(more or ())
            self._svpending = self._lvpending = None  # type: ignore[misc]
            value = super().__call__(*args, **kwargs)
        for callback in callbacks:
            callback(*self.value[0])
        return value


class Gathering(vine.barrier):  # type: ignore[misc]
    """Counts the results of a group, from when somebody wants to hear of them.

    Arguments:
        results: the group's own list.
    """

    def __init__(self, results: Any) -> None:
        super().__init__()
        self._results = results
        # Celery's barrier goes through the results: a group made from a generator gives its tasks their ids only then.
        for _ in results:
            pass
        #: The group, which is kept while it is listened for.
        self.group: Any = None

    def begin(self, group: Any) -> None:
        """Listen for the results that are there."""
        with _lock:
            if self.group is not None:
                return
            self.group = group
        for result in self._results:
            self.add(result)
        with _lock:
            self.finalized = True
            self.ready = full = self._value >= self.size
        if full:
            self.p()

    def add(self, result: Any) -> None:
        """Count one more."""
        if self.group is not None:
            with _lock:
                self.size += 1
            result.then(self)

    def finalize(self) -> None:
        """Do nothing: the group is whole when somebody begins to listen."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        with _lock:
            self._value += 1
            if self.ready or not self.finalized or self._value < self.size:
                return
            self.ready = True
        self.p()


class ReadsResults(Protocol):
    """The part of the result backend that a listener needs."""

    app: Any

    def read(self, task_id: str, payload: Any) -> dict[str, Any]:
        """Return what the dispatcher has sent of a task, as Celery's backends return it."""


class Listener:
    """Reads results as they come, in a thread that lives as long as any are listened for.

    Arguments:
        backend: whose.
    """

    def __init__(self, backend: ReadsResults) -> None:
        self._backend = backend
        self._begin_anew()
        _listeners.add(self)

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        #: Guards what follows, but for the removal of single entries.
        self._lock = threading.Lock()
        #: Result objects by task id, behind functions, for those that are held weakly.
        self._results: dict[str, list[Callable[[], Any]]] = {}
        self._waiting: Waiting | None = None
        self._thread: threading.Thread | None = None

    def add(self, result: Any, weak: bool) -> None:
        """Set a result when it comes.

        Arguments:
            result: a result object.
            weak: whether it may be forgotten where nobody else keeps it.
        """
        client = self._backend.app.client
        if os.getpid() != self._pid:
            self._begin_anew()
        with self._lock:
            held = self._results.setdefault(result.id, [])
            if any(get() is result for get in held):
                return
            held.append(weakref.ref(result) if weak else lambda: result)
            if self._waiting is not None and self._waiting.client is client:
                self._waiting.add(result.id)
            else:
                self._waiting = Waiting(client, self._results)
                self._thread = threading.Thread(
                    target=self._listen, args=(self._waiting,), name="raycelery-callbacks", daemon=True
                )
                self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until there is nothing to listen for, for so long at most."""
        thread = self._thread
        if thread is not None and os.getpid() == self._pid:
            thread.join(seconds)

    def discard(self, result: Any) -> None:
        """Listen for a result no more; may be called while the result is being deleted, whatever goes on."""
        held = self._results.get(result.id)
        for get in list(held or ()):
            if get() is result and held is not None and get in held:
                held.remove(get)

    def _listen(self, waiting: Waiting) -> None:
        while True:
            try:
                found = waiting.next()
            except DispatcherUnreachable as exc:
                if waiting.hopeless:
                    logger.error("callbacks of results are no longer called: %s", exc)
                    return
                logger.warning("cannot listen for results, will try again in a second: %s", exc)
                time.sleep(1.0)
                continue
            for task_id, arrived in found.items():
                with self._lock:
                    held = self._results.pop(task_id, [])
                self._fulfil(task_id, arrived.payload, held)
            with self._lock:
                if not self._results:
                    if self._waiting is waiting:
                        self._waiting = None
                    return

    def _fulfil(self, task_id: str, payload: Any, held: list[Callable[[], Any]]) -> None:
        for get in held:
            result = get()
            try:
                if result is not None:
                    result._maybe_set_cache(self._backend.read(task_id, payload))
            except BaseException:  # of a callback: the others are called all the same
                logger.exception("a callback of the result %s failed", task_id)


def finish(seconds: float) -> None:
    """Wait until the callbacks of results that have come have been called, for so long at most."""
    deadline = time.monotonic() + seconds
    for listener in list(_listeners):
        listener.finish(max(0.0, deadline - time.monotonic()))


leaving.finishers.append(finish)
