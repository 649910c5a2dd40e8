"""What stands where Celery and its users expect kombu's connection, channel and pool of a producer.

In direct mode messages need none of them. What publishing asks of them is answered here at no cost, all else by kombu's
own, over ``ray://`` (see :mod:`raycelery.control.transport`), which is connected when it is first needed. Follows
https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.html.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from raycelery.errors import DispatcherUnreachable

if TYPE_CHECKING:
    from celery import Celery


class _Standin:
    """Answers what it has not by kombu's object, which is made when it is first needed.

    Arguments:
        make: returns it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._real: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._real is None:
            self._real = self._make()
        return getattr(self._real, name)


class _RayTransport(_Standin):
    driver_type = driver_name = "ray"


class RayConnection(_Standin):
    """Stands for the producer's broker connection.

    Arguments:
        app: the application.
    """

    connection_errors = recoverable_connection_errors = (DispatcherUnreachable,)
    channel_errors = recoverable_channel_errors = ()

    def __init__(self, app: Celery) -> None:
        super().__init__(app.connection_for_write)
        # kombu names the connection of a connection, and its transport.
        self.connection = self
        self.transport = _RayTransport(lambda: app.connection_for_write().transport)

    @contextlib.contextmanager
    def _reraise_as_library_errors(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        yield

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Return ``ray://``."""
        return "ray://"


class RayChannel(_Standin):
    """Stands for the producer's channel.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(lambda: app.connection_for_write().default_channel)


class RayPool:
    """Stands for Celery's pool of producers: one producer serves all threads.

    Arguments:
        producer: that one.
    """

    limit = None

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.connections = producer.connection

    def acquire(self, block: bool = False, timeout: float | None = None) -> Any:
        """Return the producer."""
        return self._producer

    def release(self, resource: Any) -> None:
        """Do nothing: the producer stays."""

    replace = release

    def resize(self, limit: int, *args: Any, **kwargs: Any) -> None:
        """Do nothing: there is one producer."""

    def force_close_all(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the client connects again by itself."""
