"""What a workload is: calls of plain functions, how they are driven, and how their results are checked."""

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

#: Systems whose workers are started by hand and are all of one size.
QUEUES = ("celery", "dramatiq", "huey", "taskiq")
#: Compared unless something else is asked for; the first is what the others are measured against.
USUAL = ("celery", "raycelery", "ray")
#: Those that can run what is no more than a function.
ALL = (*USUAL, "bridge", "dramatiq", "huey", "taskiq")


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
