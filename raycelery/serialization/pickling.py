"""The pickler of arguments, results and code: Ray's own, which finds large values and what belongs to the application.

A module of its own, because it imports Ray, which takes a process 0.7 s of CPU and 60 MB: one that imports an
application and never sends a message goes without.
"""

from __future__ import annotations

import io
import logging
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.canvas import Signature
from celery.utils.log import get_task_logger, task_logger
from ray import cloudpickle

from raycelery.serialization import ray_serializers, references, remote_errors, shared_globals, values


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
        large_values: values.LargeValues | None,
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
        return None if self.large_values is None else self._keep(values.flatten(value))

    def _keep(self, flat: values.Flat) -> str | None:
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
        if kind is values.Shared:
            if self.large_values is None or obj.large_values is self.large_values:
                obj.large_values.use(obj.key)
                self.keys.append(obj.key)
            else:  # it was put for another application
                stream, *buffers = obj.large_values.fetch(obj.key)
                return values.load_shared, (self._keep(values.Flat(stream, buffers)),)
        elif isinstance(obj, Task):
            app = references.app_of_task(obj)
            if references.is_other(app, self._own):
                return values.load_task, (obj.name, references.importable(app))
            return values.load_task, (obj.name,)
        elif isinstance(obj, Celery):
            if references.is_other(obj, self._own):
                return values.load_app, (references.importable(obj),)
            return values.load_app, ()
        elif isinstance(obj, Signature):
            # One that does not say has come to this executor as its own application's.
            app = references.app_of(obj) or values.own_app()
            if references.is_other(app, self._own):
                return references.signature, (references.importable(app), dict(obj))
        elif kind is logging.Logger and _is_task_logger(obj):
            return get_task_logger, (obj.name,)
        elif isinstance(obj, BaseException):
            reduction = remote_errors.reduced(obj, values.dumps_inline)
            if reduction is not NotImplemented:
                return reduction
        elif values.size(obj) >= self.inline_bytes:
            key = self.bulk(obj)
            if key is not None:
                return values.load_bulk, (key,)
        return super().reducer_override(obj)
