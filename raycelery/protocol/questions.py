"""What a process may ask of the dispatcher; the type in brackets is the answer's.

All are asked by clients: programs, executors, bridges and tools. A :class:`Change` is kept in the journal.
"""

from __future__ import annotations

from typing import Any

from raycelery.protocol.asking import Change, Question
from raycelery.protocol.bus_questions import BusQuestion
from raycelery.protocol.codec import Plain, Seconds
from raycelery.protocol.limits import Limits

# -- work --------------------------------------------------------------------------------------------------------------


class Pending(Question[int], frozen=True):
    """How many messages are not finished."""


class Drained(Question[None], frozen=True):
    """Answered once no message is left."""


class Left(Question[dict[str, Any]], frozen=True):
    """What is not finished: how much, how much of it runs or is due later and when, of which tasks, why one waits."""


class Why(Question[str], frozen=True):
    """Why a task's message waits, or what has become of it, in one or two sentences.

    Arguments:
        task_id: its.
    """

    task_id: str


class Messages(Question[list[dict[str, Any]]], frozen=True):
    """Messages that are not finished.

    Arguments:
        place: "running", "next" (handed out, not begun), "waiting" or "eta"; anywhere if "".
        ids: of those that are looked for; None: of all.
    """

    place: str
    ids: list[str] | None = None


class Unknown(Question[list[str]], frozen=True):
    """Those of some task ids of which there is no message.

    Arguments:
        ids: the task ids.
    """

    ids: list[str]


class Forgotten(Question[list[str]], frozen=True):
    """Those of some task ids of which there is neither a message nor a result.

    Arguments:
        ids: the task ids.
    """

    ids: list[str]


class Revoke(Change[None], frozen=True):
    """Revoke messages by task id, those yet to be submitted included.

    Arguments:
        ids: the task ids.
        terminate: whether those that run are ended.
    """

    ids: list[str]
    terminate: bool


class RevokeStamps(Change[None], frozen=True):
    """Revoke messages by stamped headers.

    Arguments:
        stamps: values, or lists of them, by name.
        terminate: whether those that run are ended.
    """

    stamps: dict[str, Any]
    terminate: bool


class Purge(Change[int], frozen=True):
    """Drop what waits, and count it.

    Arguments:
        queue: only of this queue; None: of all.
    """

    queue: str | None = None


class Waits(Question[list[str]], frozen=True):
    """Ids of the tasks whose messages wait, also for their time, and could be withdrawn.

    Arguments:
        queues: only of these; empty: of all.
        but: ids that are left out.
        most: so many at most.
    """

    queues: list[str]
    but: list[str]
    most: int


class Withdraw(Change[list[str]], frozen=True):
    """Take messages that wait off the queues; the ids of those that were, as the others have begun meanwhile.

    They are kept together as the value :data:`WITHDRAWN`, each an encoded
    :class:`raycelery.protocol.messages.Submission`, until that is deleted; none is withdrawn before.

    Arguments:
        ids: of their tasks.
    """

    ids: list[str]


#: Key of what was withdrawn and has not reached its destination.
WITHDRAWN = b"raycelery-withdrawn"


class Failures(Question[list[dict[str, Any]]], frozen=True):
    """The last failures, grouped by error; see :meth:`raycelery.dispatcher.outcomes.Outcomes.failures`."""


class Retry(Question[dict[str, list[str]]], frozen=True):
    """Have tasks run once more that are among the last failures: which were "retried", are "unknown", or are "gone".

    Arguments:
        ids: of the tasks.
        app: key of the application's definition by which they run now.
    """

    ids: list[str]
    app: str


# -- results and values ------------------------------------------------------------------------------------------------


class StoredResult(Plain, frozen=True):
    """What is stored of a task.

    Arguments:
        state: Celery's, or one of the task's own.
        payload: the encoded meta.
    """

    state: str
    payload: bytes


class GetResult(Question[StoredResult | None], frozen=True):
    """State and result of a task.

    Arguments:
        task_id: its.
    """

    task_id: str


class Forget(Change[None], frozen=True):
    """Drop a result.

    Arguments:
        task_id: of the task.
    """

    task_id: str


class GetValue(Question[bytes | None], frozen=True):
    """A value by key.

    Arguments:
        key: whatever Celery's backend code makes.
    """

    key: bytes


class SetValue(Change[None], frozen=True):
    """Keep a value.

    Arguments:
        key: whatever Celery's backend code makes.
        value: its, too.
        expires: seconds that it is kept; None: for ever.
    """

    key: bytes
    value: bytes
    expires: float | None


class DeleteValue(Change[None], frozen=True):
    """Drop a value.

    Arguments:
        key: of the value.
    """

    key: bytes


class LargeValue(Question[list[bytes]], frozen=True):
    """The parts of a large value, for a process that cannot use Ray.

    Arguments:
        key: of the value.
    """

    key: str


# -- limits ------------------------------------------------------------------------------------------------------------


class SetRate(Change[None], frozen=True):
    """Set a task's rate limit, whatever the application says from now on.

    Arguments:
        task: its name.
        per_second: runs per second; None: no limit.
    """

    task: str
    per_second: float | None


class SetLimit(Change[None], frozen=True):
    """Set how many messages may run at once, whatever the application says from now on.

    Arguments:
        name: "app", "queue:NAME" or "task:NAME".
        maximum: so many; None: no limit.
    """

    name: str
    maximum: int | None


class RestoreLimit(Change[None], frozen=True):
    """Let a limit be again what the application says.

    Arguments:
        name: of the limit.
    """

    name: str


class SetTimeLimit(Change[None], frozen=True):
    """Set a task's time limits, for messages that do not bring their own.

    Arguments:
        task: its name.
        soft: seconds, or None.
        hard: seconds, or None.
    """

    task: str
    soft: Seconds | None
    hard: Seconds | None


class TimeLimits(Question[dict[str, tuple[Seconds | None, Seconds | None]]], frozen=True):
    """Soft and hard time limits that were set, in seconds, by task."""


# -- observers ---------------------------------------------------------------------------------------------------------


class Stats(Question[dict[str, Any]], frozen=True):
    """Counts of everything, and the memory of the dispatcher's process in bytes."""


class Overview(Question[dict[str, Any]], frozen=True):
    """Everything that ``raycelery status`` and ``top`` show; see :mod:`raycelery.dispatcher.monitoring.status`."""


class Respondents(Question[int], frozen=True):
    """How many will answer a remote control command that is meant for all."""


class Measure(Question[None], frozen=True):
    """Have executors measure what they run for a while.

    Arguments:
        seconds: for so long; 0: no longer.
    """

    seconds: float


class Samples(Plain, frozen=True):
    """Runs that were measured.

    Arguments:
        count: how many there have been since the dispatcher started.
        samples: those that were asked for and are kept, each an encoded
            :class:`raycelery.executor.profiling.sample.Sample`.
    """

    count: int
    samples: list[bytes]


class Measured(Question[Samples], frozen=True):
    """What executors have measured.

    Arguments:
        after: without the first so many.
    """

    after: int


# -- applications ------------------------------------------------------------------------------------------------------


class Introduce(Question[tuple[str, int, bytes]], frozen=True):
    """Where another application's dispatcher listens (host, port, secret); it is started if there is none.

    Arguments:
        name: of the application.
        limits: the bounds of a dispatcher that is started.
    """

    name: str
    limits: Limits


class GiveUp(Question[None], frozen=True):
    """Let go of what was to outlive this dispatcher, which is about to be ended for good."""


AnyQuestion = (
    Pending | Drained | Left | Why | Messages | Unknown | Forgotten | Revoke | RevokeStamps | Purge | Waits | Withdraw
    | Failures | Retry
    | GetResult | Forget | GetValue | SetValue | DeleteValue | LargeValue
    | SetRate | SetLimit | RestoreLimit | SetTimeLimit | TimeLimits
    | Stats | Overview | Respondents | Measure | Measured | Introduce | GiveUp | BusQuestion
)  # fmt: skip
