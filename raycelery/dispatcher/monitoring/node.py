"""A Ray node, as the worker that Celery's tools take it for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from raycelery.scheduler.nodes import UNIT

if TYPE_CHECKING:
    from kombu.clocks import LamportClock

    from raycelery.dispatcher.monitoring.host_stats import HostStats
    from raycelery.dispatcher.monitoring.subject import Subject
    from raycelery.dispatcher.queries import Queries
    from raycelery.scheduler.executor import ExecutorState

Reply = dict[str, Any]


class Plane(Protocol):
    """What commands use of the application's control plane."""

    clock: LamportClock
    host_stats: HostStats
    #: Seconds between heartbeats.
    heartbeat_seconds: float
    #: Whether task events are wanted by those who listen.
    task_events: bool

    def nodes(self) -> Mapping[str, str]:
        """Return the names of the live nodes by their ids."""

    def see_who_listens(self) -> None:
        """Have task events sent from now on, or no more."""

    def heartbeat(self) -> None:
        """Send heartbeats at once."""


@dataclass(frozen=True)
class Whole:
    """The application as a whole, looked at once for all nodes of a command.

    Arguments:
        subject: its dispatcher, as tools see it.
        plane: its control plane.
    """

    subject: Subject
    plane: Plane

    @cached_property
    def stats(self) -> Reply:
        """The dispatcher's counts."""
        return self.subject.queries.stats()

    @cached_property
    def finished(self) -> dict[str, dict[str, int]]:
        """Messages finished, by node and task."""
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (node, task, _), count in self.subject.queries.outcomes.counts.items():
            found[node][task] = found[node].get(task, 0) + count
        return dict(found)


@dataclass(frozen=True)
class Node:
    """A Ray node, as the worker that tools take it for.

    Arguments:
        whole: the application.
        id: Ray's.
        hostname: "celery@<host>".
        first: whether it answers for what is at no node yet.
    """

    whole: Whole
    id: str
    hostname: str
    first: bool

    @property
    def subject(self) -> Subject:
        """The application's dispatcher, as tools see it."""
        return self.whole.subject

    @property
    def queries(self) -> Queries:
        """Reads the dispatcher's state."""
        return self.whole.subject.queries

    @property
    def plane(self) -> Plane:
        """The application's control plane."""
        return self.whole.plane

    @cached_property
    def executors(self) -> list[ExecutorState]:
        """The application's executors there."""
        scheduler = self.queries.view
        node = scheduler.nodes.get(self.id)
        return [] if node is None else [scheduler.executors[executor_id] for executor_id in node.executors]

    @property
    def cpus(self) -> float:
        """How many CPUs it has."""
        node = self.queries.view.nodes.get(self.id)
        return 0.0 if node is None else node.total.get("CPU", 0) / UNIT

    @property
    def finished(self) -> dict[str, int]:
        """Messages finished there, by task."""
        return self.whole.finished.get(self.id, {})

    def messages(self, place: str) -> list[Reply]:
        """Return what is "running", "next" or "eta" there."""
        answers = self.queries
        if place == "eta":
            return answers.messages(place) if self.first else []
        return answers.given(self.executors, place)
