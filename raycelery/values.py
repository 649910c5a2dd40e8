"""Pickling of arguments and results: anything Ray can carry, with big frames and arrays kept in its object store.

A big value is found by its content, so one that goes to 1,500 tasks is stored once, and changing it between two calls
is safe. A task gets a copy of its own, as with Celery; what :func:`put` returns is shared and read-only instead.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import xxhash
from celery import Celery
from celery.app.task import Task
from celery.local import Proxy
from ray import cloudpickle

from raycelery.errors import ArgumentError

logger = logging.getLogger(__name__)

#: Values of these packages can be large, hold no code, and unpickle wherever the package is installed.
_BULK_PACKAGES = frozenset({"numpy", "pandas", "pyarrow", "polars", "scipy"})
_ATOMS = frozenset({int, float, bool, type(None), str, bytes})
#: Large values that this process keeps alive in the object store for its next call.
_KEPT = 16


class Depot(Protocol):
    """Where big values are kept; the dispatcher's, as seen by one process."""

    def keep(self, flat: Flat) -> str | None:
        """Store a value unless it is there and return its key; None where the object store is out of reach."""

    def fetch(self, key: str) -> list[Any]:
        """Return the parts of what was stored under ``key``."""


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


@dataclass(slots=True)
class Flat:
    """A large value as a pickle and the buffers beside it, which are shared memory on the reader's side."""

    stream: bytes
    buffers: list[Any]

    def key(self) -> str:
        """Return a key that another value has only if it pickles to the same bytes."""
        hasher = xxhash.xxh3_128(self.stream)
        for buffer in self.buffers:
            raw = memoryview(buffer)
            hasher.update(raw.nbytes.to_bytes(8, "big"))
            hasher.update(raw)
        return hasher.hexdigest()

    def parts(self) -> list[Any]:
        """Return the stream and the buffers, in the form in which Ray stores them without a copy of its own."""
        return [self.stream, *(pickle.PickleBuffer(buffer) for buffer in self.buffers)]


def flatten(value: Any) -> Flat:
    """Take ``value`` apart without copying its arrays."""
    if type(value) is bytes:
        return Flat(b"", [memoryview(value)])
    buffers: list[pickle.PickleBuffer] = []
    stream = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
    try:
        return Flat(stream, [buffer.raw() for buffer in buffers])
    except BufferError:  # not contiguous: let pickle copy it
        return Flat(cloudpickle.dumps(value, 5), [])


def restore(parts: list[Any], *, shared: bool) -> Any:
    """Undo :func:`flatten`.

    Arguments:
        parts: from :meth:`Flat.parts`.
        shared: leave arrays where they are, read-only; else make copies that the caller may change.
    """
    stream, *buffers = parts
    if not stream:
        return bytes(buffers[0])
    return pickle.loads(stream, buffers=buffers if shared else [bytearray(buffer) for buffer in buffers])


def _load_bulk(key: str) -> Any:
    return restore(_reachable().fetch(key), shared=False)


def _load_shared(key: str) -> Any:
    return restore(_reachable().fetch(key), shared=True)


def _reachable() -> Depot:
    if _depot is None:
        raise ArgumentError("a large value can only be read by a process that is connected to its dispatcher")
    return _depot


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


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, inline_bytes: int) -> None:
        super().__init__(file, protocol=5)
        self._inline_bytes = inline_bytes
        self.keys: list[str] = []

    def bulk(self, value: Any) -> str | None:
        if _depot is None:
            return None
        key = _depot.keep(flatten(value))
        if key is not None:
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


def dumps_body(body: Any, inline_bytes: int) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the body of a message; the plain ones, which are most, without cloudpickle's cost."""
    args, kwargs, embed = body
    if not kwargs and not any(embed.values()):
        for arg in args:
            if type(arg) not in _ATOMS or (type(arg) in (str, bytes) and len(arg) >= inline_bytes):
                break
        else:
            return pickle.dumps((args, kwargs, embed), 5), ()
    return dumps((args, kwargs, embed), inline_bytes)


def dumps_meta(meta: dict[str, Any], inline_bytes: int) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the meta of a task; those of plain results, which are most, without cloudpickle's cost."""
    result = meta["result"]
    if type(result) in _ATOMS and len(meta) <= 8 and (type(result) not in (str, bytes) or len(result) < inline_bytes):
        return pickle.dumps(meta, 5), ()
    return dumps(meta, inline_bytes)


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
        self._fetched: OrderedDict[str, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, flat: Flat) -> str | None:
        """Store a value under its content key; None in a forked child, which cannot use Ray."""
        if os.getpid() != self._pid:
            return None
        import ray

        key = flat.key()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return key
            dropped = list(self._kept)[: len(self._kept) - _KEPT + 1] if len(self._kept) >= _KEPT else []
            keep = self._dispatcher.keep.remote
            # Another process may have stored the same bytes: ask before they are sent.
            if not ray.get(keep(key, None, self._holder, dropped)):
                ray.get(keep(key, flat.parts(), self._holder, []))
            for old in dropped:
                del self._kept[old]
            self._kept[key] = None
        return key

    def fetch(self, key: str) -> list[Any]:
        """Return the parts of a value; its arrays are views of shared memory."""
        if os.getpid() != self._pid:
            return list(self._inline(key))
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
        parts: list[Any] = ray.get(refs[0])
        with self._lock:
            self._fetched[key] = parts
            while len(self._fetched) > 2:
                self._fetched.popitem(last=False)
        return parts
