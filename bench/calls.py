"""Calls of plain functions, and the workers that they run on."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any


class WrongResultError(Exception):
    """A task returned something else than it was asked to compute, so there is nothing to compare."""


@dataclass(frozen=True)
class Call:
    """One call of a function that every worker can import.

    Arguments:
        target: ``"package.module:function"``; ``call`` makes it of the function.
        args: positional arguments; JSON unless the workload's serializer is pickle.
        group: name of a group of calls that is also measured separately.
        at: seconds after the start at which it is submitted; calls are in this order.
        num_cpus: CPUs that the task asks for, where the system lets a task ask; None: the fleet's ``num_cpus``.
        memory: bytes of memory that the task asks for, likewise.
        application: name of the application; on a queue system applications share workers, on Ray the cluster.
    """

    target: str
    args: tuple[Any, ...] = ()
    group: str = ""
    at: float = 0.0
    num_cpus: float | None = None
    memory: int | None = None
    application: str = "main"


def call(function: Any, *args: Any, **options: Any) -> Call:
    """Return a call of ``function``: a function or Celery task at the top of a module.

    Arguments:
        function: what to call. A Celery task's own ``num_cpus`` and ``memory`` are kept.
        args: its arguments.
        options: those of a ``Call``: ``num_cpus``, ``memory``, ``group``, ``at``, ``application``.

    Raises:
        ValueError: workers could not import it.
    """
    if hasattr(type(function), "_get_current_object"):  # Celery makes a task when it is first looked at
        function = function._get_current_object()
    module, name = function.__module__, getattr(function, "__qualname__", None) or function.__name__
    if module == "__main__" or "<" in name or resolve(f"{module}:{name}") is None:
        raise ValueError(f"{module}.{name} cannot be imported by workers: move it to the top of a module")
    for option in ("num_cpus", "memory"):
        written = getattr(function, option, None)
        if written is not None:
            options.setdefault(option, written)
    return Call(f"{module}:{name}", args, **options)


def resolve(target: str) -> Any:
    """Import what a :class:`Call` names; None where the module has no such attribute."""
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


@dataclass(frozen=True)
class Fleet:
    """The workers of a system for one workload.

    Arguments:
        slots: worker processes, or how many tasks the cluster is expected to run at once.
        num_cpus: CPUs of a task on Ray.
        cpus: CPUs of each of Ray's nodes; more than the machine has where tasks only wait.
        nodes: Ray nodes, all on this machine.
    """

    slots: int
    num_cpus: float = 1.0
    cpus: float = 1.0
    nodes: int = 1

    def num_cpus_of(self, one: Call) -> float:
        """Return the CPUs that a call asks for; a task that needs none asks for 0."""
        return self.num_cpus if one.num_cpus is None else one.num_cpus


def import_path(folder: str) -> None:
    """Have this process look for modules in ``folder``, first."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
