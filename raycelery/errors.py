"""The errors raycelery raises itself; all else is Celery's or the task's own.

Each derives from the exception that code written for Celery already catches.
"""

from __future__ import annotations

from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import EncodeError, OperationalError


class RayCeleryError(Exception):
    """Base of every error that raycelery raises."""


class OptionError(RayCeleryError, ImproperlyConfigured):  # type: ignore[misc]
    """A setting or task option is unknown or malformed; raised where it is written."""


class DispatcherUnreachable(RayCeleryError, OperationalError):
    """The cluster or the application's dispatcher cannot be reached, or went away."""


class QueueFull(RayCeleryError, OperationalError):
    """``ray_max_pending`` messages are waiting and ``ray_submit_timeout`` has passed."""


class ArgumentError(RayCeleryError, EncodeError):
    """An argument or a task defined in ``__main__`` cannot be pickled; raised at the call."""


class AppLoadError(RayCeleryError):
    """An executor cannot import the application; the failure of each message sent to it."""
