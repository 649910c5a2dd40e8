"""Celery's tools, as the dispatcher meets them: remote control and events, once one has asked for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raycelery.protocol import operations
from raycelery.protocol.frames import SendEvents
from raycelery.scheduler import events

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.monitoring.control_plane import ControlPlane
    from raycelery.dispatcher.queries import Queries
    from raycelery.protocol.operations import TaskEvent
    from raycelery.protocol.questions import Change


@dataclass(frozen=True)
class Subject:
    """What tools look at: a dispatcher, to be read; and the few things that they may have it do.

    Arguments:
        queries: what can be read.
        core: likewise: limits and time limits.
        executors: the connections of those that there are.
        change: does what a question asks for as if a process had asked it, so that it lasts.
        on_change: called when there may be something for the scheduler to decide.
    """

    queries: Queries
    core: Core
    executors: Mapping[int, Connection]
    change: Callable[[Change[Any]], Any]
    on_change: Callable[[], None]

    def retire(self, executor_ids: list[int]) -> None:
        """Have executors end after what they run."""
        self.core.scheduler.handle(events.Retire(executor_ids), time.time())
        self.on_change()


class Tools:
    """Makes the control plane when it is asked for first; an application that nobody looks at has none.

    Arguments:
        subject: what they look at.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.plane: ControlPlane | None = None

    def control(self) -> ControlPlane:
        """Return the control plane."""
        if self.plane is None:
            from raycelery.dispatcher.monitoring.control_plane import ControlPlane

            self.plane = ControlPlane(self._subject)
        return self.plane

    def event(self, operation: TaskEvent) -> None:
        """Pass on an event that an executor or a program sends."""
        if self.plane is not None:
            self.plane.event(operation.kind, operations.fields_of(operation), operation.node)

    def greet(self, executor: Connection) -> None:
        """Tell an executor that has come if somebody listens."""
        if self.plane is not None and self.plane.watched:
            executor.send(SendEvents(True))

    def gone(self, conn: Connection) -> None:
        """Take note that a process is gone."""
        if self.plane is not None:
            self.plane.gone(conn)
