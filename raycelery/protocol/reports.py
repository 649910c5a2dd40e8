"""What executors report, and what bridges are told of their messages."""

from __future__ import annotations

from typing import Literal

from raycelery.protocol.codec import Plain, Tagged

#: What became of a message, in the order in which it is shown. A retry is a message of its own.
Outcome = Literal["succeeded", "failed", "retried", "revoked", "rejected", "ignored"]


# -- reports of executors ----------------------------------------------------------------------------------------------


class TaskError(Plain, frozen=True):
    """What a task failed with, as an executor tells it.

    Arguments:
        kind: name of the exception's class, with its module where that is not ``builtins``.
        text: the exception's own words, which may be cut short.
        place: file, line and function that raised it; "" if that is not known.
        traceback: of the executor; its end, where it is long.
    """

    kind: str
    text: str
    place: str = ""
    traceback: str = ""


class Ready(Tagged, frozen=True):
    """The application is loaded. Executor -> dispatcher.

    Arguments:
        node: Ray's id of the node.
    """

    node: str


class Begun(Tagged, frozen=True):
    """The first of the messages that it was given has begun. Executor -> dispatcher."""


class Done(Tagged, frozen=True):
    """A message, a batch or a chord has ended. Executor -> dispatcher.

    Arguments:
        seq: the scheduler's number.
        seconds: that it ran; None where its task was not called.
        outcome: what became of it.
        error: why it failed, where it did.
    """

    seq: int
    seconds: float | None
    outcome: Outcome = "succeeded"
    error: TaskError | None = None


class Requeue(Tagged, frozen=True):
    """A message is to be run again. Executor -> dispatcher.

    Arguments:
        seq: the scheduler's number.
        rejected: whether its task gave it back, by ``Reject(requeue=True)``.
    """

    seq: int
    rejected: bool


class Recalled(Tagged, frozen=True):
    """Messages are given back that were not begun. Executor -> dispatcher.

    Arguments:
        seqs: the scheduler's numbers.
    """

    seqs: list[int]


class Outdated(Tagged, frozen=True):
    """The project has changed since it was imported. Executor -> dispatcher."""


class Blocked(Tagged, frozen=True):
    """The task that runs begins or ceases to wait for its subtasks. Executor -> dispatcher.

    Arguments:
        blocked: whether it waits.
    """

    blocked: bool


class Bye(Tagged, frozen=True):
    """It ends as it was told to. Executor -> dispatcher."""


# -- what happens to messages of a bridge ------------------------------------------------------------------------------


class Began(Tagged, frozen=True):
    """It runs. Executor -> dispatcher -> bridge.

    Arguments:
        pid: of the executor's process.
    """

    pid: int


class Unbegun(Tagged, frozen=True):
    """It was given back without having begun. Executor -> dispatcher -> bridge."""


class Returned(Tagged, frozen=True):
    """Its task has returned. Executor -> dispatcher -> bridge.

    Arguments:
        text: what the task returned, as Celery logs it.
        seconds: that it ran.
        pid: of the executor's process.
    """

    text: str
    seconds: float
    pid: int


class Called(Tagged, frozen=True):
    """A call that is no task's message has returned. Executor -> dispatcher -> bridge.

    Arguments:
        value: what it returned, pickled for the bridge.
        seconds: that it ran.
        pid: of the executor's process.
    """

    value: bytes
    seconds: float
    pid: int


class Raised(Tagged, frozen=True):
    """Its task has raised: an error, or what has it run again or be ignored. Executor -> dispatcher -> bridge.

    Arguments:
        einfo: parts of Celery's ``ExceptionInfo``, pickled for the bridge.
        seconds: that it ran.
        pid: of the executor's process.
        outcome: what became of it.
    """

    einfo: bytes
    seconds: float
    pid: int
    outcome: Outcome


class Rejected(Tagged, frozen=True):
    """Its task has raised Celery's ``Reject``, with or without requeueing. Executor -> dispatcher -> bridge.

    Arguments:
        einfo: parts of Celery's ``ExceptionInfo``, pickled for the bridge.
        seconds: that it ran.
        pid: of the executor's process.
    """

    einfo: bytes
    seconds: float
    pid: int


class CannotRun(Tagged, frozen=True):
    """Its task was not called. Executor -> dispatcher -> bridge.

    Arguments:
        einfo: parts of Celery's ``ExceptionInfo``, pickled for the bridge.
        pid: of the executor's process.
    """

    einfo: bytes
    pid: int


class Terminated(Tagged, frozen=True):
    """It was ended as the bridge asked. Dispatcher -> bridge.

    Arguments:
        reason: in words.
    """

    reason: str


class TimedOut(Tagged, frozen=True):
    """Its hard time limit has passed. Dispatcher -> bridge.

    Arguments:
        reason: in words.
    """

    reason: str


class Lost(Tagged, frozen=True):
    """The executor that ran it died. Dispatcher -> bridge.

    Arguments:
        reason: in words.
    """

    reason: str


class Undeliverable(Tagged, frozen=True):
    """It can never run. Dispatcher -> bridge.

    Arguments:
        reason: in words.
    """

    reason: str


#: What an executor tells of a message, and what the dispatcher tells besides.
ExecutorEvent = Began | Unbegun | Returned | Called | Raised | Rejected | CannotRun
Event = ExecutorEvent | Terminated | TimedOut | Lost | Undeliverable


class BatchReport(Tagged, frozen=True):
    """What happens to a message of a batch. Executor -> dispatcher.

    Arguments:
        seq: the scheduler's number of the batch.
        index: which of its messages.
        event: what happened.
    """

    seq: int
    index: int
    event: ExecutorEvent


Report = Ready | Begun | Done | Requeue | Recalled | Outdated | Blocked | Bye | BatchReport
