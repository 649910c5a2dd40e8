"""Functions that travel by value see one set of globals where they arrive, as they do where they come from.

Cloudpickle gives each function it carries globals of its own, so what one sets another does not see: a model loaded by
a handler of ``worker_process_init``, a cache. Here the functions of ``__main__`` share the executor's ``__main__``, and
tasks made inside a function of an importable module have that module's globals, imported.

A global that the caller's program has given a new value since takes that value; one that it has not keeps what the
executor's tasks have made of it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import sys
from functools import lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.local import Proxy
from ray import cloudpickle
from ray.cloudpickle import cloudpickle as internals

MAIN = "__main__"

_executor = False
#: What the caller's globals were when they were last taken over.
_taken: dict[str, bytes] = {}


def share() -> None:
    """Have functions of the caller's ``__main__`` share this process's from now on (in executors)."""
    global _executor
    _executor = True


def of(function: FunctionType, by_import: bool) -> str | None:
    """Return the name of the module whose globals ``function`` should have where it arrives; None: its own.

    Arguments:
        function: one that is pickled by value.
        by_import: whether an importable module may be meant, rather than ``__main__`` only.
    """
    if function.__globals__ is vars(sys.modules[MAIN]):
        return MAIN
    name = function.__module__
    if by_import and name and function.__globals__ is getattr(sys.modules.get(name), "__dict__", None):
        return name if _importable(name) else None
    return None


@lru_cache
def _importable(name: str) -> bool:
    module = sys.modules[name]
    if name in cloudpickle.list_registry_pickle_by_value():
        return False
    try:
        return getattr(module, "__spec__", None) is not None and importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def reduced(namespace: str, reduction: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return cloudpickle's reduction of a function, changed so that it has the globals of ``namespace``."""
    _, (code, _, _, _, closure), (state, slots), *_ = reduction
    if namespace == MAIN:
        marks = {name: _mark(value) for name, value in slots["__globals__"].items()}
    else:
        marks = {}
        slots["__globals__"] = {}
        slots["_cloudpickle_submodules"] = []
    package = vars(sys.modules[namespace]).get("__package__") if namespace == MAIN else None
    return _make, (namespace, code, closure, package), (state, slots, marks), None, None, _set_state


def _mark(value: Any) -> bytes | None:
    """Return what tells a value from another one of its name; None for code, of which the latest is always meant."""
    if isinstance(value, (FunctionType, ModuleType, type, Task, Celery, Proxy, logging.Logger)):
        return None
    try:
        return hashlib.sha256(cloudpickle.dumps(value)).digest()
    except Exception:  # whether it can travel at all is found out when it is pickled for that
        return None


def _make(namespace: str, code: CodeType, closure: Any, package: str | None = None) -> Any:
    if namespace != MAIN:
        there = vars(importlib.import_module(namespace))
    else:
        there = vars(sys.modules[MAIN]) if _executor else {"__name__": MAIN}
        if package is not None:
            # For relative imports within: `python -m shop.tasks` is part of a package.
            there["__package__"] = package
    return internals._make_function(code, there, None, None, closure)


def _set_state(function: Any, state: tuple[Any, Any, dict[str, bytes | None]]) -> None:
    base, slots, marks = state
    if _executor and marks:
        there = function.__globals__
        slots["__globals__"] = {
            name: value
            for name, value in slots["__globals__"].items()
            if name not in there or marks[name] is None or _taken.get(name) != marks[name]
        }
        _taken.update({name: mark for name, mark in marks.items() if mark is not None})
    internals._function_setstate(function, (base, slots))
