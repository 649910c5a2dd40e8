"""The phases of a message and of an executor, and which may follow which.

A transition that the tables do not have is a mistake in the scheduler. Looking it up costs time on the way of every
message, so it is done only once :func:`enforce` was called: in tests, and where ``ray_debug`` is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class IllegalTransition(RuntimeError):
    """The scheduler moved a message or an executor from one phase to another that cannot follow it."""


class MessagePhase(Enum):
    """Where a message is."""

    #: Made, and not submitted.
    NEW = "new"
    #: Waits for its time (``eta``, ``countdown``).
    SCHEDULED = "scheduled"
    #: Waits in a stream for an executor, and for what limits it.
    WAITING = "waiting"
    #: It is not to be run: waits for an executor that does Celery's bookkeeping (its ``settle_reason`` says which).
    UNSETTLED = "unsettled"
    #: An executor has it, to run it. The first that an executor has is running.
    ASSIGNED = "assigned"
    #: An executor has it, for bookkeeping.
    SETTLING = "settling"
    #: Taken from where it was by an event that puts it elsewhere, or ends it, before the next event.
    TAKEN = "taken"
    #: Ended, purged, given up, or given back to the bridge that it came from.
    DONE = "done"


_M = MessagePhase
#: The phases that may follow each.
MESSAGE_PHASES: Mapping[MessagePhase, frozenset[MessagePhase]] = {
    # An executor's own message (a chord's body, called by the last task of its header) is its at once.
    _M.NEW: frozenset({_M.SCHEDULED, _M.WAITING, _M.UNSETTLED, _M.ASSIGNED, _M.SETTLING, _M.DONE}),
    _M.SCHEDULED: frozenset({_M.WAITING, _M.TAKEN}),
    _M.WAITING: frozenset({_M.ASSIGNED, _M.TAKEN}),
    _M.UNSETTLED: frozenset({_M.SETTLING, _M.TAKEN}),
    _M.ASSIGNED: frozenset({_M.TAKEN}),
    _M.SETTLING: frozenset({_M.TAKEN}),
    _M.TAKEN: frozenset({_M.WAITING, _M.UNSETTLED, _M.DONE}),
    _M.DONE: frozenset(),
}


class ExecutorPhase(Enum):
    """Where an executor is in its life.

    Who has its CPUs is told by flags of their own, since it holds through several phases: whether its message waits for
    subtasks (``blocked``), whether they are another application's (``paused``), and whether it gave back what it had
    on top of a node's own (``resting``).
    """

    #: Asked of Ray; it has not loaded the application yet.
    STARTING = "starting"
    #: Has nothing to do.
    IDLE = "idle"
    #: Has messages.
    BUSY = "busy"
    #: Has run its only message (``executor="function"``), and ends by itself.
    SPENT = "spent"
    #: Was asked to end.
    STOPPING = "stopping"
    #: Is ended by force, with what it runs.
    KILLED = "killed"
    #: Has ended.
    ENDED = "ended"


_E = ExecutorPhase
EXECUTOR_PHASES: Mapping[ExecutorPhase, frozenset[ExecutorPhase]] = {
    _E.STARTING: frozenset({_E.IDLE, _E.KILLED, _E.ENDED}),
    _E.IDLE: frozenset({_E.BUSY, _E.STOPPING, _E.KILLED, _E.ENDED}),
    _E.BUSY: frozenset({_E.IDLE, _E.SPENT, _E.KILLED, _E.ENDED}),
    _E.SPENT: frozenset({_E.BUSY, _E.STOPPING, _E.KILLED, _E.ENDED}),
    _E.STOPPING: frozenset({_E.KILLED, _E.ENDED}),
    _E.KILLED: frozenset({_E.ENDED}),
    _E.ENDED: frozenset(),
}

#: Whether transitions are looked up.
enforced = False


def enforce(on: bool) -> None:
    """Look up every transition from now on, in this process, or none."""
    global enforced
    enforced = on


def check_message(name: str, before: MessagePhase, after: MessagePhase) -> None:
    """Refuse a transition of a message that the table does not have.

    Raises:
        IllegalTransition: naming the message and both phases.
    """
    if after not in MESSAGE_PHASES[before]:
        raise IllegalTransition(f"message {name} cannot be {after.value} after it was {before.value}")


def check_executor(executor_id: int, before: ExecutorPhase, after: ExecutorPhase) -> None:
    """Refuse a transition of an executor that the table does not have.

    Raises:
        IllegalTransition: naming the executor and both phases.
    """
    if after not in EXECUTOR_PHASES[before]:
        raise IllegalTransition(f"executor {executor_id} cannot be {after.value} after it was {before.value}")
