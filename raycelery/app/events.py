"""``app.events`` in direct mode: what programs and tasks send goes to the dispatcher, which passes it on to listeners.

Follows https://docs.celeryq.dev/en/stable/reference/celery.events.html. Receivers are Celery's own, over ``ray://``.
"""

from __future__ import annotations

from celery.app.events import Events as CeleryEvents
from celery.events import EventDispatcher

from raycelery.app.standins import RayConnection


class RayEventDispatcher(EventDispatcher):  # type: ignore[misc]
    """Celery's event dispatcher; one that was given no connection of its own sends by the application's producer.

    So nothing is connected for an event, and one that nobody listens to ends at the dispatcher.
    """

    def enable(self) -> None:
        """Send events from now on."""
        if not isinstance(self.connection, RayConnection):
            super().enable()
            return
        with self.mutex:
            self.producer = self.app.producer
            self._closed = False
            self.enabled = True
        for callback in self.on_enabled:
            callback()


class Events(CeleryEvents):  # type: ignore[misc]
    """Celery's ``app.events``, whose ``default_dispatcher()`` is also ``Task.send_event``'s."""

    dispatcher_cls = "raycelery.app.events:RayEventDispatcher"
