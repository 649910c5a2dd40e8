"""Celery's tools, as the dispatcher meets them: remote control and events, once one has asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raycelery.protocol import operations
from raycelery.protocol.frames import SendEvents

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.monitoring.control_plane import ControlPlane
    from raycelery.dispatcher.monitoring.subject import Subject
    from raycelery.protocol.operations import TaskEvent


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
