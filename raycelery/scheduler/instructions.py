"""What the scheduler tells the dispatcher to do.

Plain data, made on the way of every message: they are not frozen because that would triple what making one costs.
"""

from __future__ import annotations

from dataclasses import dataclass

from raycelery.scheduler.model import Lane, Message


@dataclass(slots=True, eq=False)
class Assign:
    """Hand these messages to this executor, which runs them in order."""

    executor_id: int
    messages: list[Message]


@dataclass(slots=True, eq=False)
class Start:
    """Start an executor of ``lane``, on ``node`` if one is named.

    ``without_cpus``: Ray is not to be asked for its CPUs, which others have on exactly that node: executors that wait
    for their subtasks, or another application's.
    """

    executor_id: int
    lane: Lane
    node: str | None = None
    without_cpus: bool = False


@dataclass(slots=True, eq=False)
class Stop:
    """Ask an idle executor to end."""

    executor_id: int


@dataclass(slots=True, eq=False)
class Kill:
    """End an executor at once, with what it is running."""

    executor_id: int
    reason: str = ""


@dataclass(slots=True, eq=False)
class Recall:
    """Ask an executor to give back the messages it has not begun."""

    executor_id: int


@dataclass(slots=True, eq=False)
class Drop:
    """Tell callers that a message was given up: no executor could record what became of it."""

    message: Message


@dataclass(slots=True, eq=False)
class Return:
    """Give a message back to the bridge that it came from: it will not be run to its end, see ``settle_reason``."""

    message: Message


Instruction = Assign | Start | Stop | Kill | Recall | Drop | Return
