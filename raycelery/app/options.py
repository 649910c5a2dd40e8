"""The options of tasks, queues and calls (``num_cpus``...), and the check that refuses a wrong one by name."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from raycelery.app import environment
from raycelery.errors import OptionError

_RESOURCES = ("num_cpus", "num_gpus", "memory")
#: Ray's resolution.
_LEAST = 0.0001


def check_amount(name: str, value: Any) -> None:
    """Raise :class:`OptionError` unless the value is an amount of a resource; memory is in bytes."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or 0 < value < _LEAST:
        unit = "bytes" if name == "memory" else "a number such as 2 or 0.5"
        raise OptionError(f"{name}={value!r} is not an amount: give {unit}, zero or more")
    if name == "num_gpus" and value > 1 and value != int(value):
        raise OptionError(f"{name}={value!r}: more than one GPU can only be asked for in whole numbers")


def _resources(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r} must be a mapping of resource names to amounts")
    for key, amount in value.items():
        if not isinstance(key, str):
            raise OptionError(f"{name} may not name {key!r}: names are strings")
        if key in ("CPU", "GPU", "memory"):
            raise OptionError(f"{name} may not name {key!r}: use num_cpus, num_gpus or memory")
        check_amount(f"{name}[{key!r}]", amount)


def _concurrency(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise OptionError(f"{name}={value!r} must be a whole number of at least 1, or None for no limit")


def _executor(name: str, value: Any) -> None:
    if value not in ("actor", "function", "driver"):
        raise OptionError(f"{name}={value!r} must be 'actor', 'function' or 'driver'")


#: Every per-task, per-queue and per-call option, with its check.
TASK_OPTIONS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(_RESOURCES, check_amount),
    "resources": _resources,
    "runtime_env": environment.check,
    "max_concurrency": _concurrency,
    "executor": _executor,
}

#: Misspellings that difflib does not find near enough.
_ALIASES = {
    "cpus": "num_cpus",
    "num_cpu": "num_cpus",
    "ncpus": "num_cpus",
    "cpu": "num_cpus",
    "gpus": "num_gpus",
    "num_gpu": "num_gpus",
    "gpu": "num_gpus",
    "mem": "memory",
    "concurrency": "max_concurrency",
    "env": "runtime_env",
}


def check_options(options: Mapping[str, Any], where: str, *, strict: bool = False) -> None:
    """Refuse malformed or misspelt task options.

    Celery lets any name be an option of a task (it becomes an attribute), so a name is refused only where it is
    near to one of ours, unless ``strict``.

    Arguments:
        options: option names and values, as written by the user.
        where: what they were written on, for the error.
        strict: refuse every name that is not ours.

    Raises:
        OptionError: naming the option and the remedy.
    """
    for name, value in options.items():
        check = TASK_OPTIONS.get(name)
        if check is not None:
            try:
                if value is not None:
                    check(name, value)
            except OptionError as exc:
                raise OptionError(f"{where}: {exc}") from None
            continue
        near = nearest(name, TASK_OPTIONS, cutoff=0.85)
        if near and name in _ALIASES and not strict and not _passes(near, value):
            continue  # env="production" is the project's own
        if near or strict:
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(TASK_OPTIONS))}"
            raise OptionError(f"{where}: unknown option {name!r}; {hint}")


def _passes(name: str, value: Any) -> bool:
    try:
        TASK_OPTIONS[name](name, value)
    except OptionError:
        return False
    return True


def options_of(task: Any) -> dict[str, Any]:
    """Return the Ray options among the attributes of a task, checked; a project's own properties and methods are not.

    Raises:
        OptionError: one is malformed.
    """
    found = {}
    for name in TASK_OPTIONS:
        written = inspect.getattr_static(task, name, None)
        if written is not None and not isinstance(written, property) and not callable(written):
            found[name] = written
    if found:
        check_options(found, f"task {task.name!r}")
    return found


def nearest(name: str, known: Mapping[str, Any], cutoff: float) -> str | None:
    """Return the known name that ``name`` is a misspelling of, or None; ``cutoff`` is that of difflib."""
    if name in _ALIASES and _ALIASES[name] in known:
        return _ALIASES[name]
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return found[0] if found else None
