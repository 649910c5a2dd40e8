"""The calls to measure, which a function of the project returns."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature

from raycelery.errors import OptionError
from raycelery.executor.profiling.canvas import members

if TYPE_CHECKING:
    from celery import Celery


def load(source: str, app: Celery) -> list[Signature]:
    """Return the calls that a function of the project returns.

    The function returns or yields signatures, tuples of a task (or its name), args and kwargs, or calls of
    :func:`raycelery.bench.call`. If it has a parameter, that is ``quick``, as for ``raycelery bench``, and False.

    Arguments:
        source: ``"module:function"``; without the colon, ``calls`` of that module.
        app: the application that the tasks belong to.

    Raises:
        OptionError: there is no such function, or it returns something that is not a call of a task.
    """
    module_name, _, name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name or "calls")
    except (ImportError, AttributeError) as exc:
        raise OptionError(f"--calls {source}: {exc}") from exc
    if not callable(function):
        raise OptionError(f"--calls {source}: it is not a function")
    wants = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    found = [_signature(one, app, source) for one in _iterate(function(*[False] * len(wants)), source)]
    if not found:
        raise OptionError(f"--calls {source}: it returns no calls")
    return found


def _iterate(calls: Any, source: str) -> Iterable[Any]:
    if isinstance(calls, (Signature, str)) or not isinstance(calls, Iterable):
        raise OptionError(f"--calls {source}: it must return a list of calls, not {calls!r}")
    return calls


def _signature(call: Any, app: Celery, source: str) -> Signature:
    task: Any
    if isinstance(call, Signature):
        return call
    if isinstance(call, (tuple, list)) and 1 <= len(call) <= 3:
        task, args, kwargs = call[0], call[1] if len(call) > 1 else (), call[2] if len(call) > 2 else {}
    elif hasattr(call, "target") and hasattr(call, "args"):
        module, _, attribute = call.target.partition(":")
        task, args, kwargs = getattr(importlib.import_module(module), attribute, None), call.args, {}
    else:
        raise OptionError(f"--calls {source}: {call!r} is not a call: give task.s(...), or (task, args, kwargs)")
    name = task if isinstance(task, str) else getattr(task, "name", None)
    if name not in app.tasks:
        raise OptionError(f"--calls {source}: {task!r} is not a task of {app.main or 'the application'}")
    return app.tasks[name].signature(tuple(args), dict(kwargs))


def cut(call: Signature, most: int) -> Signature:
    """Return a call with at most ``most`` calls of each task in its chord's header or its group."""
    if call["task"] not in ("celery.chord", "celery.group"):
        return call
    tasks = members(call["kwargs"].get("header" if call["task"] == "celery.chord" else "tasks"))
    chosen = spread(tasks, most)
    if len(chosen) == len(tasks):
        return call
    smaller = call.clone()
    smaller.tasks = chosen
    return smaller


def spread(calls: list[Signature], most: int) -> list[Signature]:
    """Return at most ``most`` calls of each task, evenly spread from first to last, as they may be sorted by size."""
    by_task: dict[str, list[int]] = {}
    for number, call in enumerate(calls):
        by_task.setdefault(call.task, []).append(number)
    chosen = []
    for numbers in by_task.values():
        count = min(most, len(numbers))
        chosen += [numbers[int((step + 0.5) * len(numbers) / count)] for step in range(count)]
    return [calls[number] for number in sorted(chosen)]
