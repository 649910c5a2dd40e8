"""Pickling of arguments and results: anything Ray can carry, with big frames and arrays kept in its object store.

A big value is found by its content, so one that goes to 1,500 tasks is stored once, and changing it between two calls
is safe. A task gets a copy of its own, as with Celery; what :func:`put` returns is shared and read-only instead.
"""

from __future__ import annotations

import copy
import io
import logging
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import xxhash
from celery import Celery
from celery.app.task import Task
from celery.local import Proxy
from ray.cloudpickle import CloudPickler

from raycelery.errors import ArgumentError

logger = logging.getLogger(__name__)

#: Values of these packages can be large, hold no code, and unpickle wherever the package is installed.
_BULK_PACKAGES = frozenset({"numpy", "pandas", "pyarrow", "polars", "scipy"})
_ATOMS = frozenset({int, float, bool, type(None), str, bytes})
#: Large values that this process keeps alive in the object store for its next call.
_KEPT = 16


class Depot(Protocol):
    """Where big values are kept; the dispatcher's, as seen by one process."""

    def keep(self, key: str, value: Any) -> bool:
        """Store ``value`` under ``key`` unless it is there; False where this process cannot reach the object store."""

    def fetch(self, key: str) -> Any:
        """Return what was stored under ``key``."""


_depot: Depot | None = None
_app: Celery | None = None


def use(depot: Depot | None = None, app: Celery | None = None) -> None:
    """Set the depot that big values go to and come from, and (in executors) the application that tasks belong to."""
    global _depot, _app
    _depot = depot if depot is not None else _depot
    _app = app if app is not None else _app


def _size(value: Any) -> int:
    if type(value).__module__.partition(".")[0] not in _BULK_PACKAGES:
        return 0
    try:
        nbytes = getattr(value, "nbytes", None)
        if isinstance(nbytes, int):
            return nbytes
        usage = getattr(value, "memory_usage", None)
        return int(usage(index=True).sum()) if callable(usage) else 0
    except (TypeError, AttributeError, NotImplementedError):
        return 0


def content_key(value: Any) -> str:
    """Return a key that equals another value's only if both pickle to the same bytes."""
    buffers: list[pickle.PickleBuffer] = []
    hasher = xxhash.xxh3_128()
    stream = pickle.dumps(value, 5, buffer_callback=buffers.append)
    try:
        raws = [buffer.raw() for buffer in buffers]
    except BufferError:  # not contiguous: let pickle copy it
        stream, raws = pickle.dumps(value, 5), []
    hasher.update(stream)
    for raw in raws:
        hasher.update(raw.nbytes.to_bytes(8, "big"))
        hasher.update(raw)
    return hasher.hexdigest()


def _load_bulk(key: str) -> Any:
    if _depot is None:
        raise ArgumentError("a large value can only be read by a process that is connected to its dispatcher")
    value = _depot.fetch(key)
    return value if isinstance(value, (bytes, str)) else copy.deepcopy(value)


def _load_shared(key: str) -> Any:
    assert _depot is not None
    return _depot.fetch(key)


def _load_task(name: str) -> Any:
    # A function that mentions another task may be loaded before it: look it up when it is used.
    return Proxy(lambda: _load_app().tasks[name])


def _load_app() -> Any:
    if _app is not None:
        return _app
    from celery import current_app

    return current_app._get_current_object()


class Shared:
    """A value in the object store that any number of tasks may take as an argument; see :func:`put`."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"<raycelery.put {self.key}>"

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return _load_shared, (self.key,)


class _Pickler(CloudPickler):
    def __init__(self, file: io.BytesIO, inline_bytes: int) -> None:
        super().__init__(file, protocol=5)
        self._inline_bytes = inline_bytes
        self.keys: list[str] = []

    def bulk(self, value: Any) -> str | None:
        if _depot is None:
            return None
        key = content_key(value)
        if not _depot.keep(key, value):
            return None
        self.keys.append(key)
        return key

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is Shared:
            self.keys.append(obj.key)
        elif isinstance(obj, Task):
            return _load_task, (obj.name,)
        elif isinstance(obj, Celery):
            return _load_app, ()
        elif _size(obj) >= self._inline_bytes:
            key = self.bulk(obj)
            if key is not None:
                return _load_bulk, (key,)
        return super().reducer_override(obj)


class _Bulk:
    """Stands for a large ``bytes`` or ``str``, which a pickler does not let us replace."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return _load_bulk, (self.key,)


def dumps(value: Any, inline_bytes: int = 100_000) -> tuple[bytes, tuple[str, ...]]:
    """Pickle a value.

    Arguments:
        value: anything cloudpickle can carry; code defined in ``__main__`` travels by value.
        inline_bytes: size in bytes from which arrays, frames, ``bytes`` and ``str`` go to the object store.

    Returns:
        the pickle and the keys of the large values that it refers to.

    Raises:
        ArgumentError: part of it cannot be pickled.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, inline_bytes)
    try:
        pickler.dump(_swap_large(value, pickler, inline_bytes))
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError) as exc:
        raise ArgumentError(f"cannot be pickled: {exc}") from exc
    return file.getvalue(), tuple(pickler.keys)


def _swap_large(value: Any, pickler: _Pickler, inline_bytes: int, depth: int = 3) -> Any:
    kind = type(value)
    if kind is bytes or kind is str:
        if len(value) >= inline_bytes:
            key = pickler.bulk(value)
            return value if key is None else _Bulk(key)
    elif depth and (kind is tuple or kind is list):
        swapped = [_swap_large(item, pickler, inline_bytes, depth - 1) for item in value]
        if any(a is not b for a, b in zip(swapped, value, strict=True)):
            return kind(swapped)
    elif depth and kind is dict:
        swapped_dict = {k: _swap_large(v, pickler, inline_bytes, depth - 1) for k, v in value.items()}
        if any(swapped_dict[k] is not value[k] for k in value):
            return swapped_dict
    return value


def dumps_body(args: Any, kwargs: Any, embed: Any, inline_bytes: int) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the body of a message; the plain ones, which are most, without cloudpickle's cost."""
    if not kwargs and not any(embed.values()):
        for arg in args:
            if type(arg) not in _ATOMS or (type(arg) in (str, bytes) and len(arg) >= inline_bytes):
                break
        else:
            return pickle.dumps((args, kwargs, embed), 5), ()
    return dumps((args, kwargs, embed), inline_bytes)


def loads(data: bytes) -> Any:
    """Undo :func:`dumps`."""
    return pickle.loads(data)


class RayDepot:
    """The depot of a process that is connected to Ray.

    The dispatcher owns what is stored, so it outlives the process that stored it; what this process stored last stays
    in reach for its next calls, what a waiting message or a kept result refers to stays as long as that does.

    Arguments:
        dispatcher: the dispatcher's actor handle.
        holder: names this process in the dispatcher's books.
        inline: fetches a value over the socket, for a process that cannot use Ray.
    """

    def __init__(self, dispatcher: Any, holder: str, inline: Callable[[str], Any]) -> None:
        self._dispatcher = dispatcher
        self._holder = holder
        self._inline = inline
        self._pid = os.getpid()
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._fetched: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, key: str, value: Any) -> bool:
        """Store ``value`` under its content key; False in a forked child, which cannot use Ray."""
        if os.getpid() != self._pid:
            return False
        import ray

        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return True
            ref = ray.put(value, _owner=self._dispatcher)
            dropped = []
            self._kept[key] = None
            while len(self._kept) > _KEPT:
                dropped.append(self._kept.popitem(last=False)[0])
            ray.get(self._dispatcher.keep.remote(key, [ref], self._holder, dropped))
        return True

    def fetch(self, key: str) -> Any:
        """Return the value; arrays in it are read-only views of shared memory."""
        if os.getpid() != self._pid:
            return self._inline(key)
        import ray

        with self._lock:
            if key in self._fetched:
                self._fetched.move_to_end(key)
                return self._fetched[key]
        refs = ray.get(self._dispatcher.fetch.remote(key))
        if not refs:
            raise ArgumentError(
                f"the large value {key} is gone: keep the process that put it alive, or raise result_expires"
            )
        value = ray.get(refs[0])
        with self._lock:
            self._fetched[key] = value
            while len(self._fetched) > 2:
                self._fetched.popitem(last=False)
        return value
