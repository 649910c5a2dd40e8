"""Runs messages: the one path that those of direct mode and those of a bridge's batches take.

Celery's ``trace_task`` decides states, retries, callbacks and signals, see
https://docs.celeryq.dev/en/stable/internals/app-overview.html. Who keeps Celery's books beyond that depends on where a
message comes from: the executor itself for direct mode (:mod:`raycelery.executor.direct`), the worker that has the
broker's message for a bridge (:mod:`raycelery.executor.bridged`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import celery
from kombu.serialization import prepare_accept_content

from raycelery.client.connection import Client
from raycelery.errors import LEAVING
from raycelery.executor.loading import Tasks
from raycelery.executor.output import OUTPUT
from raycelery.executor.soft_limit import soft_limit
from raycelery.protocol.definitions import DefineCode
from raycelery.protocol.messages import CodeKey
from raycelery.protocol.reports import Report

logger = logging.getLogger(__name__)

#: For most messages: a generator made and run for nothing is a twentieth of what the executor spends on one.
_UNLIMITED = contextlib.nullcontext()


class Message(ABC):
    """Something to be done in an executor.

    Attributes:
        task_id: Celery's; known once it is open.
        began: reported before it runs, if anything is.
    """

    task_id = ""
    began: Report | None = None

    @abstractmethod
    def open(self) -> None:
        """Read what it is about, without loading anything of the project's, and have the output noted as its own."""

    @abstractmethod
    def run(self, runner: Runner) -> None:
        """Do it."""

    @abstractmethod
    def fail(self, exc: BaseException) -> None:
        """Record that it cannot be done, and log why."""

    @abstractmethod
    def refuse(self, exc: BaseException) -> None:
        """Record that it cannot be done since the application cannot be loaded."""

    @abstractmethod
    def report(self) -> Report:
        """Return what is reported once it is done or has failed."""


class TaskMessage(Message):
    """The call of a task.

    Attributes:
        name: the task's.
        module: the one that the caller has the task from.
        code: the task's, where it travels by value.
        soft_limit: the message's own, in seconds.
        request: what Celery's tracer is told of it.
    """

    name = ""
    module: str | None = None
    code: CodeKey | None = None
    soft_limit: float | None = None
    request: dict[str, Any]

    @abstractmethod
    def decode(self, accept: Any) -> Callable[[], tuple[Any, Any]]:
        """Add what follows the task to the request, and return what loads args and kwargs.

        Arguments:
            accept: the content types that the application accepts.
        """

    @abstractmethod
    def prepare(self, task: Any) -> None:
        """Find what the books need of the task, before its arguments are loaded."""

    @abstractmethod
    def begin(self, task: Any) -> bool:
        """Keep the books of its beginning; return False if it is not to run."""

    @abstractmethod
    def end(self, result: Any, seconds: float) -> None:
        """Keep the books of its end.

        Arguments:
            result: what Celery's tracer returned.
            seconds: that it ran.
        """

    def on_soft_limit(self, seconds: float) -> None:
        """Take note that a soft time limit is reached."""
        logger.warning("Soft time limit (%ss) exceeded for %s[%s]", seconds, self.name, self.task_id)

    def run(self, runner: Runner) -> None:
        """Run the task through Celery's tracer."""
        try:
            # First of all what follows the task: it is to hear of the failure of all the rest.
            arguments = self.decode(runner.accept)
            task = runner.tasks.find(self.name, self.module, self.code)
            self.prepare(task)
            args, kwargs = arguments()
            self.request.update(args=args, kwargs=kwargs)
        except BaseException as exc:  # whatever keeps a message from running is its failure, and ends no executor
            if isinstance(exc, KeyboardInterrupt) or hasattr(exc, "ray_terminate_msg"):
                raise  # Ray ends this process
            self.fail(exc)
            return
        if not self.begin(task):
            return
        soft = self.soft_limit or task.soft_time_limit
        began = time.monotonic()
        try:
            with soft_limit(runner.client, soft, self.on_soft_limit) if soft else _UNLIMITED:
                result = task.__trace__(self.task_id, args, kwargs, self.request)
        finally:
            runner.client.quiet = ()
            runner.current = None
        self.end(result, time.monotonic() - began)


class Runs(Protocol):
    """What runs messages: a :class:`Runner`, or what stands in for it."""

    app: celery.Celery
    #: Id of the message that is running, and the thread that runs messages.
    current: str | None
    thread: int

    def run(self, message: Message) -> None:
        """Do what a message asks for."""

    def learn(self, codes: list[DefineCode]) -> None:
        """See :meth:`raycelery.executor.loading.Tasks.learn`."""

    def set_time_limits(self, limits: dict[str, tuple[float | None, float | None]]) -> None:
        """See :meth:`raycelery.executor.loading.Tasks.set_time_limits`."""


class Runner:
    """Runs the messages of one application in this process, one after the other.

    Arguments:
        app: the loaded application.
        client: the executor's connection.
    """

    def __init__(self, app: celery.Celery, client: Client) -> None:
        self.app = app
        self.client = client
        self.tasks = Tasks(app)
        self.accept = prepare_accept_content(app.conf.accept_content)
        self.current: str | None = None
        self.thread = threading.get_ident()
        self.learn = self.tasks.learn
        self.set_time_limits = self.tasks.set_time_limits

    def run(self, message: Message) -> None:
        """Do what a message asks for.

        Raises:
            SystemExit, KeyboardInterrupt: the task ends its process.
            Exception: Celery's bookkeeping failed; the executor ends, and another one does it.
        """
        try:
            message.open()
            self.current = message.task_id or None
            message.run(self)
        except (Exception, *LEAVING):
            raise
        except BaseException as exc:  # raised by a handler of the end of its task
            message.fail(exc)
        finally:
            self.current = None
            OUTPUT.end()


class Unloadable:
    """Stands in for :class:`Runner` where the application cannot be loaded: fails every message with the reason.

    Arguments:
        app: a bare application of the same name, whose backend the failures go to.
        error: why the real one cannot be loaded.
    """

    def __init__(self, app: celery.Celery, error: Exception) -> None:
        self.app = app
        self._error = error
        self.current: str | None = None
        self.thread = threading.get_ident()

    def run(self, message: Message) -> None:
        """Fail a message."""
        try:
            message.open()
            message.refuse(self._error)
        finally:
            OUTPUT.end()

    def learn(self, codes: list[DefineCode]) -> None:
        """Do nothing: no task will be called."""

    def set_time_limits(self, limits: dict[str, tuple[float | None, float | None]]) -> None:
        """Do nothing: no task will be called."""
