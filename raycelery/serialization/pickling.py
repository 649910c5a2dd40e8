"""The pickler of arguments, results and code: Ray's own, which finds large values and what belongs to the application.

A module of its own, because it imports Ray, which takes a process 0.7 s of CPU and 60 MB: one that imports an
application and never sends a message goes without.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.canvas import Signature
from celery.utils.log import get_task_logger, task_logger
from ray import cloudpickle

from raycelery.errors import ArgumentError
from raycelery.serialization import ray_serializers, references, remote_errors, shared_globals
from raycelery.serialization.large_values import (
    INLINE,
    Flat,
    LargeValues,
    Shared,
    flatten,
    load_bulk,
    load_shared,
    size,
)

#: The most that a message or result may have without what is kept in the object store.
MOST_BYTES = 1_000_000_000


def _is_task_logger(logger: logging.Logger | None) -> bool:
    # Pickle would carry its name only, and forget that its lines begin with the task's.
    while logger is not None and logger is not task_logger:
        logger = logger.parent
    return logger is not None


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles one value; see :func:`raycelery.serialization.values.dumps`.

    Arguments:
        file: where to.
        inline_bytes: size in bytes from which values go to the object store.
        large_values: where these are kept; None: they are part of the pickle.
        code: whether the value is what an application or a task is made of.
        own: the application that it belongs to: others are referred to by where they are imported from.
    """

    def __init__(
        self,
        file: io.BytesIO,
        inline_bytes: int,
        large_values: LargeValues | None,
        code: bool = False,
        own: Celery | None = None,
    ) -> None:
        if ray_serializers.postponed:
            ray_serializers.complete()
        super().__init__(file, protocol=5)
        self._code = code
        self._own = own
        self.inline_bytes = inline_bytes
        self.large_values = large_values
        self.keys: list[str] = []

    def bulk(self, value: Any) -> str | None:
        """Keep a large value in the object store and return its key; None where there is none in reach."""
        return None if self.large_values is None else self._keep(flatten(value))

    def _keep(self, flat: Flat) -> str | None:
        assert self.large_values is not None
        key = self.large_values.keep(flat)
        if key is not None:
            self.keys.append(key)
        return key

    def _dynamic_function_reduce(self, func: Any) -> Any:
        reduction = super()._dynamic_function_reduce(func)
        namespace = shared_globals.of(func, self._code)
        return reduction if namespace is None else shared_globals.reduced(namespace, reduction)

    def reducer_override(self, obj: Any) -> Any:
        """Say how an object is pickled."""
        kind = type(obj)
        if kind is Shared:
            if self.large_values is None or obj.large_values is self.large_values:
                obj.large_values.use(obj.key)
                self.keys.append(obj.key)
            else:  # it was put for another application
                stream, *buffers = obj.large_values.fetch(obj.key)
                return load_shared, (self._keep(Flat(stream, buffers)),)
        elif isinstance(obj, Task):
            app = references.app_of_task(obj)
            if references.is_other(app, self._own):
                return references.load_task, (obj.name, references.importable(app))
            return references.load_task, (obj.name,)
        elif isinstance(obj, Celery):
            if references.is_other(obj, self._own):
                return references.load_app, (references.importable(obj),)
            return references.load_app, ()
        elif isinstance(obj, Signature):
            # One that does not say has come to this executor as its own application's.
            app = references.app_of(obj) or references.own_app()
            if references.is_other(app, self._own):
                return references.signature, (references.importable(app), dict(obj))
        elif kind is logging.Logger and _is_task_logger(obj):
            return get_task_logger, (obj.name,)
        elif isinstance(obj, BaseException):
            reduction = remote_errors.reduced(obj, dumps_inline)
            if reduction is not NotImplemented:
                return reduction
        elif size(obj) >= self.inline_bytes:
            key = self.bulk(obj)
            if key is not None:
                return load_bulk, (key,)
        return super().reducer_override(obj)


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
    """Pickle a value; see :func:`raycelery.serialization.values.dumps`."""
    file = io.BytesIO()
    pickler = Pickler(file, inline_bytes, large_values, own=own)
    return _dumps(value, pickler, file), tuple(pickler.keys)


def dumps_inline(value: Any) -> bytes:
    """Pickle a value with all that is large in it."""
    return dumps(value)[0]


def dumps_code(value: Any, own: Celery | None = None) -> bytes:
    """Pickle what an application or a task is made of; see :func:`raycelery.serialization.values.dumps_code`."""
    return _dumps(value, Pickler(file := io.BytesIO(), INLINE, None, code=True, own=own), file)


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
