"""Celery on Ray: ``from raycelery import Celery`` in place of ``from celery import Celery``.

The module has what ``celery`` has; ``Celery`` is the application class whose tasks run on Ray, and every submodule of
``celery`` (``raycelery.result``, ``raycelery.schedules``, ``raycelery.utils.log``...) is there under this name too.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import celery as _celery

from raycelery import names as _names

if TYPE_CHECKING:
    from raycelery.app.application import Celery as Celery

__version__ = _names.VERSION


class _CelerySubmodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports ``raycelery.X`` as the module ``celery.X`` wherever raycelery has no X of its own."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("raycelery."):
            return None
        parent = sys.modules.get(name.rpartition(".")[0])
        # Below a package that is Celery's, a path would lead to second copies of Celery's modules.
        if getattr(parent, "__name__", "").startswith(__name__) and importlib.machinery.PathFinder.find_spec(
            name, path
        ):
            return None
        counterpart = "celery." + name.partition(".")[2]
        try:
            if importlib.util.find_spec(counterpart) is None:
                return None
        except ModuleNotFoundError:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module("celery." + spec.name.partition(".")[2])
        # The import system writes to the module it is given; put back what it overwrites.
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        for name, spec in list(self._specs.items()):
            if sys.modules.get(name) is module:
                module.__spec__ = spec
                del self._specs[name]

    def __init__(self) -> None:
        self._specs: dict[str, Any] = {}


sys.meta_path.insert(0, _CelerySubmodules())


def put(value: Any) -> Any:
    """Put a large value into Ray's object store once, for any number of tasks to take as an argument.

    Arguments:
        value: anything Ray can store; see https://docs.ray.io/en/latest/ray-core/objects.html.

    Returns:
        a small stand-in to pass to tasks of the current application, which get the value itself: shared between the
        tasks of a node, with its arrays read-only.

    Raises:
        DispatcherUnreachable: there is no Ray to put it into.
    """
    from raycelery.errors import DispatcherUnreachable
    from raycelery.serialization.large_values import Shared, flatten

    app = _celery.current_app._get_current_object()
    large_values = app.session.large_values
    key = large_values.keep(flatten(value))
    if key is None:
        raise DispatcherUnreachable("a forked child cannot use Ray: call raycelery.put() in the parent")
    return Shared(key, large_values)


def __getattr__(name: str) -> Any:
    if name in ("Celery", "App"):
        from raycelery.app.application import Celery

        globals()[name] = Celery
        return Celery
    return getattr(_celery, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_celery)})


__all__ = [*(name for name in _celery.__all__), "put"]
