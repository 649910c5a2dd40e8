"""What a workload is: calls of plain functions, how they are driven, and how their results are checked."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .record import Outcome
    from .systems.base import System

#: Systems whose workers are started by hand and are all of one size.
QUEUES = ("celery", "dramatiq", "huey", "taskiq")
#: Compared unless something else is asked for; the first is what the others are measured against.
USUAL = ("celery", "raycelery", "ray")
#: Those that can run what is no more than a function.
ALL = (*USUAL, "bridge", "dramatiq", "huey", "taskiq")


class WrongResultError(Exception):
    """A task returned something else than it was asked to compute, so there is nothing to compare."""


@dataclass(frozen=True)
class Call:
    """One call of a function that every worker can import.

    Arguments:
        target: ``"package.module:function"``; ``call`` makes it of the function.
        args: positional arguments; JSON unless the workload's serializer is pickle.
        group: calls of a group are also measured by themselves.
        at: seconds after the start at which it is submitted; calls are in this order.
        num_cpus: CPUs that the task asks for, where the system lets a task ask; None: the fleet's.
        memory: bytes likewise.
        application: calls of different applications share workers on a queue system, and the cluster on Ray.
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
    """How a system is provisioned for a workload.

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


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Arguments:
        concurrency: workers of a queue, CPUs of Ray.
        quick: a run of seconds, which tells whether it works rather than how fast.
        module: of the workload ``own``.
        sample: run so many of the calls only, evenly from the first to the last, and measure what each uses.
        num_cpus: what every task asks for, whatever the workload says.
        memory: bytes likewise.
    """

    concurrency: int
    quick: bool = False
    module: str | None = None
    sample: int | None = None
    num_cpus: float | None = None
    memory: int | None = None


@dataclass
class Drive:
    """What came of a workload: the outcomes by call, and figures of the workload's own."""

    outcomes: list[Outcome]
    figures: dict[str, float] = field(default_factory=dict)


class Workload:
    """One kind of work, the same on every system.

    A subclass sets the attributes and implements :meth:`calls`; what else it overrides is what makes it special.
    """

    name: str
    #: One sentence for the list and the report.
    about: str
    #: Systems that can run it; the others are left out.
    systems: Sequence[str] = USUAL
    #: Names of figures (see `bench.figures`) that its table shows, the most telling first.
    figures: Sequence[str] = ("makespan", "throughput", "utilisation", "queueing_p95")
    #: How arguments travel through Celery: "json", its default, or "pickle".
    serializer = "json"
    #: Whether a task that fails is part of what is measured rather than an error.
    tolerant = False
    #: Celery's settings, on Celery and on raycelery.
    celery_settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def fleet(self, system: str) -> Fleet:
        """How the system is provisioned: by default as many slots everywhere."""
        return Fleet(self.settings.concurrency, cpus=self.settings.concurrency)

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """What the work needs besides the system (a data service, a scratch folder): variables for all processes."""
        yield {}

    def calls(self, system: str) -> list[Call]:
        """The work."""
        raise NotImplementedError

    def warm(self) -> str:
        """A function, as a target, that each worker runs before the clock starts: imports and caches."""
        return f"{__package__}.record:nothing"

    def drive(self, system: System, calls: list[Call], progress: Callable[[int, int], None]) -> Drive:
        """Have the calls run, and wait for them: here, all are submitted at their times and then all are taken."""
        return Drive(system.batch(calls, progress, tolerant=self.tolerant))

    def check(self, calls: list[Call], values: list[Any]) -> None:
        """See that every result is right.

        Raises:
            WrongResultError: one is not; naming the call.
        """

    def comparable(self, value: Any) -> Any:
        """The part of a result that must be equal on all systems."""
        return value

    def digest(self, values: list[Any]) -> str:
        """A fingerprint of all results, equal on two systems only if the results are."""
        text = json.dumps([self.comparable(value) for value in values], sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Make what NumPy and pandas return JSON."""
    for method in ("tolist", "to_dict"):
        if hasattr(value, method):
            return getattr(value, method)()
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else repr(value)


def expect(calls: list[Call], values: list[Any], wanted: Callable[[Call], Any]) -> None:
    """Compare every result with what its call should return.

    Raises:
        WrongResultError: naming the first one that differs.
    """
    if len(calls) != len(values):
        raise WrongResultError(f"{len(values)} results of {len(calls)} calls")
    for one, got in zip(calls, values, strict=True):
        if got != wanted(one):
            raise WrongResultError(f"{one.target}{one.args} returned {str(got)[:200]}, not {str(wanted(one))[:200]}")


def import_path(folder: str) -> None:
    """Have this process look for modules in ``folder``, first."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
