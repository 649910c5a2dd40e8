"""Pickling of arguments and results: anything Ray can carry, with big frames and arrays kept in its object store.

A big value is found by its content, so one that goes to 1,500 tasks is stored once, and changing it between two calls
is safe. A task gets a copy of its own, as with Celery; what :func:`put` returns is shared and read-only instead.
"""

from __future__ import annotations

import io
import logging
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import xxhash
from celery import Celery
from celery.local import Proxy

from raycelery.errors import ArgumentError
from raycelery.serialization import references

if TYPE_CHECKING:
    from raycelery.serialization.pickling import Pickler

logger = logging.getLogger(__name__)

#: Values of these packages can be large, hold no code, and unpickle wherever the package is installed.
_BULK_PACKAGES = frozenset({"numpy", "pandas", "pyarrow", "polars", "scipy"})
_ATOMS = frozenset({int, float, bool, type(None), str, bytes})
#: The most that a message or result may have without what is kept in the object store.
MOST_BYTES = 1_000_000_000
#: For :func:`dumps`: nothing is large, all of it goes into the pickle.
INLINE = 1 << 62


class LargeValues(Protocol):
    """Where big values are kept; the dispatcher's, as seen by one process."""

    def keep(self, flat: Flat) -> str | None:
        """Store a value unless it is there and return its key; None where the object store is out of reach."""

    def use(self, key: str) -> None:
        """Note that a message being made refers to ``key``."""

    def unuse(self, key: str) -> None:
        """Take back one :meth:`use` or :meth:`keep`."""

    def done(self, keys: Iterable[str]) -> None:
        """Note that what refers to ``keys`` was handed over; to be called once for each key kept or used."""

    def fetch(self, key: str) -> list[Any]:
        """Return the parts of what was stored under ``key``."""


_large_values: LargeValues | None = None
_reading = threading.local()
_app: Celery | None = None


def use(large_values: LargeValues | None = None, app: Celery | None = None) -> None:
    """Set, in an executor, the store of large values and the application that tasks belong to."""
    global _large_values, _app
    _large_values = large_values if large_values is not None else _large_values
    _app = app if app is not None else _app


@lru_cache(maxsize=4096)
def _is_bulk(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] in _BULK_PACKAGES for base in kind.__mro__)


def size(value: Any) -> int:
    """Return the bytes of an array or frame; 0 for anything else."""
    if not _is_bulk(type(value)):  # type: ignore[arg-type]
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

    @property
    def nbytes(self) -> int:
        """How large it is."""
        return len(self.stream) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def parts(self) -> list[Any]:
        """Return the stream and the buffers, in the form in which Ray stores them without a copy of its own."""
        return [self.stream, *(pickle.PickleBuffer(buffer) for buffer in self.buffers)]


def flatten(value: Any) -> Flat:
    """Take ``value`` apart without copying its arrays."""
    if type(value) is bytes:
        return Flat(b"", [memoryview(value)])
    from ray import cloudpickle

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


def load_bulk(key: str) -> Any:
    """Return a copy of a large value; what a pickle has in its place."""
    return restore(_reachable().fetch(key), shared=False)


def load_shared(key: str) -> Any:
    """Return a large value that others read too; what a pickle has in its place."""
    return restore(_reachable().fetch(key), shared=True)


def _reachable() -> LargeValues:
    large_values: LargeValues | None = getattr(_reading, "large_values", None) or _large_values
    if large_values is None:
        raise ArgumentError("a large value can only be read by a process that is connected to its dispatcher")
    return large_values


def load_task(name: str, reference: references.Reference | None = None) -> Any:
    """Return the task of that name; what a pickle has in its place."""
    # A function that mentions another task may be loaded before it: look it up when it is used.
    return Proxy(lambda: load_app(reference).tasks[name])


def own_app() -> Celery | None:
    """Return the application that this process is an executor of; None in others."""
    return _app


def load_app(reference: references.Reference | None = None) -> Any:
    """Return the application, or another one that is referred to; what a pickle has in its place."""
    if reference is not None:
        return references.resolve(reference, _app)
    if _app is not None:
        return _app
    from celery import current_app

    return current_app._get_current_object()


class Shared:
    """A value in the object store that any number of tasks may take as an argument; see :func:`put`."""

    __slots__ = ("__weakref__", "key", "large_values")

    def __init__(self, key: str, large_values: LargeValues) -> None:
        self.key = key
        self.large_values = large_values
        # It is in use for as long as this stand-in lives.
        weakref.finalize(self, large_values.unuse, key).atexit = False

    def __repr__(self) -> str:
        return f"<raycelery.put {self.key}>"

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return load_shared, (self.key,)


class _Bulk:
    """Stands for a large ``bytes`` or ``str``, which a pickler does not let us replace."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return load_bulk, (self.key,)


def dumps(
    value: Any, inline_bytes: int = INLINE, large_values: LargeValues | None = None, own: Celery | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Pickle a value.

    Arguments:
        value: anything cloudpickle can carry; code defined in ``__main__`` travels by value.
        inline_bytes: size in bytes from which arrays, frames, ``bytes`` and ``str`` go to the object store.
        large_values: the application's.
        own: the application.

    Returns:
        the pickle and the keys of the large values that it refers to; ``large_values.done`` is to be called with these
        when what is made of it has been handed to the client.

    Raises:
        ArgumentError: part of it cannot be pickled.
    """
    from raycelery.serialization.pickling import Pickler

    file = io.BytesIO()
    pickler = Pickler(file, inline_bytes, large_values, own=own)
    return _dumps(value, pickler, file), tuple(pickler.keys)


def dumps_inline(value: Any) -> bytes:
    """Pickle a value as :func:`dumps` does, with all that is large in it."""
    return dumps(value)[0]


def _dumps(value: Any, pickler: Pickler, file: io.BytesIO) -> bytes:
    try:
        pickler.dump(_swap_large(value, pickler))
    except BaseException as exc:
        if pickler.large_values is not None:
            pickler.large_values.done(pickler.keys)
        if isinstance(exc, (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError)):
            raise ArgumentError(f"cannot be pickled: {exc}") from exc
        raise
    data = file.getvalue()
    if len(data) > MOST_BYTES:
        if pickler.large_values is not None:
            pickler.large_values.done(pickler.keys)
        raise ArgumentError(f"takes {len(data)} bytes when pickled: more than the {MOST_BYTES} that a message may have")
    return data


def _swap_large(value: Any, pickler: Pickler, depth: int = 3) -> Any:
    kind = type(value)
    if kind is bytes or kind is str:
        if len(value) >= pickler.inline_bytes:
            key = pickler.bulk(value)
            return value if key is None else _Bulk(key)
    elif depth and (kind is tuple or kind is list):
        swapped = [_swap_large(item, pickler, depth - 1) for item in value]
        if any(a is not b for a, b in zip(swapped, value, strict=True)):
            return kind(swapped)
    elif depth and kind is dict:
        swapped_dict = {k: _swap_large(v, pickler, depth - 1) for k, v in value.items()}
        if any(swapped_dict[k] is not value[k] for k in value):
            return swapped_dict
    return value


def dumps_code(value: Any, own: Celery | None = None) -> bytes:
    """Pickle what an application or a task is made of.

    Arguments:
        value: the code.
        own: the application.

    Raises:
        ArgumentError: part of it cannot be pickled.
    """
    from raycelery.serialization.pickling import Pickler

    return _dumps(value, Pickler(file := io.BytesIO(), INLINE, None, code=True, own=own), file)


def dumps_body(
    body: Any, inline_bytes: int, large_values: LargeValues | None, own: Celery | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the body of a message; the plain ones, which are most, without cloudpickle's cost.

    What follows the task (callbacks, errbacks, chain, chord) is pickled apart from the arguments, so that it hears of
    arguments that cannot be loaded.
    """
    args, kwargs, embed = body
    keys: tuple[str, ...] = ()
    follows = any(embed.values())
    if not kwargs and all(
        type(arg) in _ATOMS and (type(arg) not in (str, bytes) or len(arg) < inline_bytes) for arg in args
    ):
        if not follows:
            return pickle.dumps((args, kwargs, embed), 5), ()
        arguments = pickle.dumps((args, kwargs), 5)
    elif not follows:
        return dumps((args, kwargs, embed), inline_bytes, large_values, own)
    else:
        arguments, keys = dumps((args, kwargs), inline_bytes, large_values, own)
    try:
        following, more = dumps(embed, inline_bytes, large_values, own)
    except BaseException:
        if large_values is not None:
            large_values.done(keys)
        raise
    return pickle.dumps((arguments, following), 5), (*keys, *more)


def open_body(data: bytes) -> tuple[dict[str, Any], Callable[[], tuple[Any, Any]]]:
    """Undo :func:`dumps_body`: return what follows the task, and a function that loads its arguments."""
    try:
        body = pickle.loads(data)
    except Exception as exc:  # the arguments' own code; nothing follows where they are not apart
        error = exc

        def fail() -> Any:
            raise error

        return {}, fail
    if len(body) == 3:
        args, kwargs, embed = body
        return embed, lambda: (args, kwargs)
    return loads(body[1]), lambda: loads(body[0])


def with_embed(data: Any, embed: dict[str, Any], own: Celery | None = None) -> Any:
    """Return a body that a serializer has encoded, along with what follows the task, if anything does."""
    return (data, dumps(embed, own=own)[0]) if any(embed.values()) else data


def open_encoded(body: Any) -> tuple[dict[str, Any], Any]:
    """Undo :func:`with_embed`: return what follows the task, and the encoded body."""
    return (loads(body[1]), body[0]) if isinstance(body, tuple) else ({}, body)


def dumps_meta(
    meta: dict[str, Any], inline_bytes: int, large_values: LargeValues | None
) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the meta of a task; those of plain results, which are most, without cloudpickle's cost."""
    result = meta["result"]
    if type(result) in _ATOMS and len(meta) <= 8 and (type(result) not in (str, bytes) or len(result) < inline_bytes):
        return pickle.dumps(meta, 5), ()
    return dumps(meta, inline_bytes, large_values)


def loads(data: bytes, large_values: LargeValues | None = None) -> Any:
    """Undo :func:`dumps`; large values are read from ``large_values``, by default the executor's own."""
    if large_values is None or large_values is _large_values:
        return pickle.loads(data)
    before = getattr(_reading, "large_values", None)
    _reading.large_values = large_values
    try:
        return pickle.loads(data)
    finally:
        _reading.large_values = before
