"""Celery's results, which may be awaited here, ``value = await task.delay()``, and tell when they are ready.

``then`` and ``on_ready`` are Celery's, see https://docs.celeryq.dev/en/stable/reference/celery.result.html; callbacks
are called as soon as the result comes, in a thread for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import celery.result
import vine
from celery import states

from raycelery.errors import ResultLoadError
from raycelery.results.promises import Gathering, ReadyPromise


class AsyncResult(celery.result.AsyncResult):  # type: ignore[misc]
    """Celery's ``AsyncResult``; awaiting it is ``get()`` without blocking the event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if hasattr(self.backend, "listen"):
            self.on_ready.__class__ = ReadyPromise

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Have ``callback`` called with this result when the task has ended, at once if it has."""
        if not hasattr(self.backend, "listen"):
            return super().then(callback, on_error, weak)
        if weak and isinstance(callback, vine.barrier):
            return callback  # of the group that it is made in, which listens when somebody wants to hear
        noted = self.on_ready.note(callback, on_error)
        if not self.on_ready.ready:
            self.backend.listen(self, weak)
        return noted

    def get(self, timeout: float | None = None, propagate: bool = True, *args: Any, **kwargs: Any) -> Any:
        """Return the value, or raise the error; without ``propagate`` return the error, if only that of its loading."""
        try:
            return super().get(timeout, propagate, *args, **kwargs)
        except ResultLoadError as exc:
            if propagate:
                raise
            return exc

    wait = get

    def _maybe_reraise_parent_error(self) -> None:
        for node in reversed(list(self._parents())):
            _throw_errors(node)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        if not hasattr(self.backend, "listen"):
            return await asyncio.to_thread(self.get)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        self.then(lambda _: loop.call_soon_threadsafe(tell))
        await ready
        return self.maybe_throw()


class ResultSet(celery.result.ResultSet):  # type: ignore[misc]
    """Celery's ``ResultSet``; awaiting it is ``get()`` without blocking the event loop."""

    _ready: Any = None

    def __init__(self, results: Any, app: Any = None, ready_barrier: Any = None, **kwargs: Any) -> None:
        self._app, self.results = app, results
        if hasattr(self.backend, "listen"):
            ready_barrier = Gathering(results)
        super().__init__(results, app=app, ready_barrier=ready_barrier, **kwargs)

    @property
    def on_ready(self) -> Any:
        """The promise that is fulfilled when all tasks have ended."""
        if isinstance(self._on_full, Gathering):
            self._on_full.begin(self)
        return self._ready

    @on_ready.setter
    def on_ready(self, ready: Any) -> None:
        self._ready = ready

    def _on_ready(self) -> None:
        if isinstance(self._on_full, Gathering):
            self._ready()
        else:
            super()._on_ready()

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Have ``callback`` called with this set when all its tasks have ended, at once if they have."""
        if weak and isinstance(callback, vine.barrier) and isinstance(self._on_full, Gathering):
            return callback  # of the group that it is made in, which listens when somebody wants to hear
        return super().then(callback, on_error, weak)

    def join_native(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's ``join_native``; without ``propagate`` a value that cannot be loaded is its error."""
        try:
            return super().join_native(*args, **kwargs)
        except ResultLoadError:
            if args or kwargs.get("propagate", True) or kwargs.get("callback") is not None:
                raise
            kwargs.pop("on_message", None)
            return self.join(**kwargs)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        if not all(hasattr(result, "__await__") for result in self.results):
            return await asyncio.to_thread(self.get, disable_sync_subtasks=False)
        for result in self.results:
            result.then(_nothing)
        return [await result for result in self.results]


class GroupResult(celery.result.GroupResult, ResultSet):  # type: ignore[misc]
    """Celery's ``GroupResult``; awaiting it is ``get()`` without blocking the event loop."""


def _throw_errors(node: Any) -> None:
    """Raise the first error that a result holds; values are not looked at, as some may not be loadable here."""
    if isinstance(node, celery.result.ResultSet):
        for result in node.results:
            _throw_errors(result)
    elif node.state in states.PROPAGATE_STATES:
        node.maybe_throw()


def _nothing(result: Any) -> None:
    """Do nothing: the result is asked for along with the others of its group."""
