"""Values that are kept in the object store: arrays, frames, long texts, and what :func:`raycelery.put` was given.

A value is found by its content, so one that goes to 1,500 tasks is stored once.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from blake3 import blake3

from raycelery.errors import ArgumentError

#: The size in bytes from which nothing is large: all of a value goes into its pickle.
INLINE = 1 << 62
#: Values of these packages can be large, hold no code, and unpickle wherever the package is installed.
_BULK_PACKAGES = frozenset({"numpy", "pandas", "pyarrow", "polars", "scipy"})


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


#: An executor's own, and what a thread of any process reads from just now.
_own: LargeValues | None = None
_reading = threading.local()


def use(large_values: LargeValues) -> None:
    """Set, in an executor, where large values are."""
    global _own
    _own = large_values


@contextlib.contextmanager
def reading_from(large_values: LargeValues | None) -> Iterator[None]:
    """Have this thread read large values from ``large_values`` meanwhile; None: from the executor's own."""
    before = getattr(_reading, "large_values", None)
    _reading.large_values = large_values
    try:
        yield
    finally:
        _reading.large_values = before


def are_own(large_values: LargeValues | None) -> bool:
    """Return whether these are the executor's own, which it reads from anyway."""
    return large_values is None or large_values is _own


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

    def key(self, secret: bytes) -> str:
        """Return a key that another value has only if it pickles to the same bytes, whoever made it up.

        Arguments:
            secret: of 32 bytes; who does not know it cannot tell from the key whether the value is one that he knows.
        """
        hasher = blake3(key=secret)
        for part in (self.stream, *self.buffers):
            raw = memoryview(part)
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
    large_values: LargeValues | None = getattr(_reading, "large_values", None) or _own
    if large_values is None:
        raise ArgumentError("a large value can only be read by a process that is connected to its dispatcher")
    return large_values


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
