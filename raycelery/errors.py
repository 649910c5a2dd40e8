"""The exceptions that raycelery itself raises; all others are Celery's or the task's.

Each derives from the exception that code written for Celery already catches.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import ImproperlyConfigured, NotRegistered, WorkerLostError
from kombu.exceptions import EncodeError, OperationalError

#: What a task raises to end its process; all else is its failure.
LEAVING = (SystemExit, KeyboardInterrupt)


class RayCeleryError(Exception):
    """Base of every error that raycelery raises."""


class OptionError(RayCeleryError, ImproperlyConfigured):  # type: ignore[misc]
    """A setting or task option is unknown or malformed; raised where it is written."""


class DispatcherUnreachable(RayCeleryError, OperationalError):
    """The cluster or the application's dispatcher cannot be reached, or went away."""


class DispatcherGone(DispatcherUnreachable):
    """The application's dispatcher was ended for good, or its cluster was; another call may start another one."""


class VersionMismatch(DispatcherUnreachable):
    """The application's dispatcher and this process are of versions of raycelery that do not understand each other."""


class FolderError(RayCeleryError):
    """A folder or file that only this user may have written is another's, or is not what it should be."""


class QueueFull(RayCeleryError, OperationalError):
    """``ray_max_pending`` messages are waiting and ``ray_submit_timeout`` has passed."""


class JournalFull(RayCeleryError, OperationalError):
    """The disk that has the dispatcher's journal is full: a call is refused, what was taken before runs."""


class JournalInUse(RayCeleryError):
    """Another dispatcher writes the application's journal, or its folder cannot be locked."""


class JournalLost(RayCeleryError, WorkerLostError):  # type: ignore[misc]
    """The dispatcher lost its journal, and with it what it knew of a task."""


class ArgumentError(RayCeleryError, EncodeError):
    """An argument or a task defined in ``__main__`` cannot be pickled; raised at the call."""


class MessageError(RayCeleryError, ValueError):
    """A message that direct mode cannot take: it is not a task, or code puts it into a queue of tasks itself."""


class AppLoadError(RayCeleryError):
    """The executors, which run the tasks, cannot import the application; each task fails with it."""


class TaskNotRegistered(RayCeleryError, NotRegistered):  # type: ignore[misc]
    """The application has no task of that name in the executors.

    Arguments:
        name: the name that was called.
        advice: what to do about it.
    """

    def __init__(self, name: str, advice: str) -> None:
        super().__init__(name)
        self.advice = advice

    def __str__(self) -> str:
        return f"no task {self.args[0]!r} is registered: {self.advice}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class InfeasibleError(RayCeleryError, WorkerLostError):  # type: ignore[misc]
    """No node of the cluster is large enough for what a task asks for, and none came in ``ray_infeasible_seconds``."""


class ResultLoadError(RayCeleryError):
    """The value that a task returned cannot be loaded in this process; its state and traceback can be read."""


class RemoteError(RayCeleryError):
    """A task's error whose class cannot be imported in this process.

    A subclass is made for each such class. It has the original's name and module, and derives from ``RemoteError`` and
    from those bases of the original that can be imported. ``args`` and attributes are those of the original error.
    """

    #: What ``str`` said of the error.
    _remote_text = ""
    #: The function that makes it, and what of, for whoever it is passed on to: see `object.__reduce__`.
    _remote_reduction: tuple[Any, tuple[Any, ...]] | None = None

    def __str__(self) -> str:
        return self._remote_text or super().__str__()

    def __reduce__(self) -> Any:
        return super().__reduce__() if self._remote_reduction is None else self._remote_reduction
