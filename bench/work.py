"""The base class of workloads: calls of plain functions, how they are submitted, and how results are checked."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .calls import Call, Fleet, WrongResultError
from .record import Outcome

if TYPE_CHECKING:
    from .systems.base import System

#: Queue systems, whose workers are all of one size.
QUEUES = ("celery", "dramatiq", "huey", "taskiq")
#: Systems that are compared by default; the others are compared with the first.
USUAL = ("celery", "raycelery", "ray")
#: Systems that can run plain functions.
ALL = (*USUAL, "bridge", "dramatiq", "huey", "taskiq")


@dataclass(frozen=True)
class Settings:
    """Options of the command line.

    Arguments:
        concurrency: workers of a queue, CPUs of Ray.
        quick: a run of seconds, to see whether it works.
        module: name of the module for the workload ``own``.
        sample: run only this many calls, evenly spread, and measure what each uses; None for all calls.
        num_cpus: CPUs that every task asks for, instead of the workload's numbers.
        memory: bytes of memory that every task asks for, likewise.
    """

    concurrency: int
    quick: bool = False
    module: str | None = None
    sample: int | None = None
    num_cpus: float | None = None
    memory: int | None = None


@dataclass
class Drive:
    """The outcomes of a workload's calls, and figures that the workload computes itself."""

    outcomes: list[Outcome]
    figures: dict[str, float] = field(default_factory=dict)


class Workload:
    """Work that is the same on every system.

    A subclass sets the attributes and implements :meth:`calls`; everything else has defaults.

    Arguments:
        settings: options of the command line.
    """

    name: str
    #: A description for the list and the report.
    about: str
    #: Systems that can run it.
    systems: Sequence[str] = USUAL
    #: Names of figures (see `bench.figures`) in its table, the most important first.
    figures: Sequence[str] = ("makespan", "throughput", "utilisation", "queueing_p95")
    #: Celery's serializer for arguments and results: "json" or "pickle".
    serializer = "json"
    #: Whether failed tasks are recorded instead of raised.
    tolerant = False
    #: Additional settings, for Celery and raycelery.
    celery_settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def fleet(self, system: str) -> Fleet:
        """Return the workers of a system; by default ``concurrency`` slots on each."""
        return Fleet(self.settings.concurrency, cpus=self.settings.concurrency)

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """Start what the work needs besides the system, such as a data service; yield environment variables."""
        yield {}

    def calls(self, system: str) -> list[Call]:
        """Return the calls to run on a system."""
        raise NotImplementedError

    def warm(self) -> str:
        """Return the target of a function that each worker runs before time is measured: imports and caches."""
        return f"{__package__}.record:nothing"

    def drive(self, system: System, calls: list[Call], progress: Callable[[int, int], None]) -> Drive:
        """Run the calls and wait for them; by default each is submitted at its time."""
        return Drive(system.batch(calls, progress, tolerant=self.tolerant))

    def check(self, calls: list[Call], values: list[Any]) -> None:
        """Check every result.

        Raises:
            WrongResultError: a result is wrong; the message names the call.
        """

    def comparable(self, value: Any) -> Any:
        """Return the part of a result that must be equal on all systems."""
        return value

    def digest(self, values: list[Any]) -> str:
        """Return a hash of all results, to compare the results of two systems."""
        text = json.dumps([self.comparable(value) for value in values], sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Convert objects of NumPy and pandas, and sets, to JSON data."""
    for method in ("tolist", "to_dict"):
        if hasattr(value, method):
            return getattr(value, method)()
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else repr(value)


def expect(calls: list[Call], values: list[Any], wanted: Callable[[Call], Any]) -> None:
    """Compare every result with the expected one.

    Arguments:
        wanted: returns the expected result of a call.

    Raises:
        WrongResultError: a result differs; the message names the first one.
    """
    if len(calls) != len(values):
        raise WrongResultError(f"{len(values)} results of {len(calls)} calls")
    for one, got in zip(calls, values, strict=True):
        if got != wanted(one):
            raise WrongResultError(f"{one.target}{one.args} returned {str(got)[:200]}, not {str(wanted(one))[:200]}")
