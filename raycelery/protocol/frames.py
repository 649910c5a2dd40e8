"""What a connection carries, a frame at a time."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import field

from raycelery.protocol.codec import Decoder, Plain, Seconds, Tagged
from raycelery.protocol.definitions import DefineCode, Definition
from raycelery.protocol.messages import Assignment, BatchAssignment, ChordAssignment, Submission
from raycelery.protocol.operations import Operation
from raycelery.protocol.questions import AnyQuestion
from raycelery.protocol.reports import Event, Report

#: What a process is to the dispatcher. An observer only asks.
Role = Literal["client", "executor", "bridge", "observer"]


# -- to the dispatcher -------------------------------------------------------------------------------------------------


class Hello(Tagged, frozen=True):
    """Who it is that has connected; the first frame. Client, executor or bridge -> dispatcher.

    Arguments:
        role: what it is.
        holder: id of the connecting process, under which it keeps large values; a forked child has another.
        holds: keys of large values that it keeps.
        pid: its process id.
        host: its host's name.
        logs: whether it shows what the tasks that it submits print.
        executor_id: the scheduler's number of an executor.
        node: Ray's id of an executor's node.
        app: key of the application's definition that an executor was started for.
        begun: path of an executor's :class:`raycelery.executor.begun.BegunFile` on its node.
    """

    role: Role
    holder: str = ""
    holds: list[str] = field(default_factory=list)
    pid: int = 0
    host: str = ""
    logs: bool = False
    executor_id: int | None = None
    node: str = ""
    app: str = ""
    begun: str = ""


class Changes(Tagged, frozen=True):
    """What a process defines, submits, stores and reports, in that order; the journal keeps it as a whole.
    Client, executor or bridge -> dispatcher.

    Arguments:
        frame_id: ascending number by which it is acknowledged; 0 for a frame without submissions, which is not.
        definitions: new ones.
        submissions: messages for the queues.
        operations: on the store.
        reports: of an executor.
    """

    frame_id: int = 0
    definitions: list[Definition] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


class Watch(Tagged, frozen=True):
    """Results that somebody waits for; they come as soon as they are there. Client, executor or bridge -> dispatcher.

    Arguments:
        ids: of tasks whose results are awaited.
        prefetched: of tasks whose results will be, most likely; large ones are announced, and sent when they are.
    """

    ids: list[str]
    prefetched: list[str]


class Ask(Tagged, frozen=True):
    """A question. Client, executor or bridge -> dispatcher.

    Arguments:
        question_id: number by which it is answered.
        question: what is asked.
    """

    question_id: int
    question: AnyQuestion


class BridgeTask(Plain, frozen=True):
    """Which message of which batch: for whom lines of a bridge's task are.

    Arguments:
        seq: the scheduler's number of the batch.
        index: of the message in it.
    """

    seq: int
    index: int


class TaskLines(Tagged, frozen=True):
    """What a task prints and logs. Executor -> dispatcher.

    Arguments:
        to: id of the client that is to see it; "": nobody asked for it but those who follow.
        of_bridge: the message of a bridge that it is of, whose bridge is to see it.
        file: name of the file on the node that has it, too.
        lines: an encoded list of :class:`raycelery.logs.lines.Line`.
        left_out: how many lines there were besides.
        ids: of the tasks that the lines are of.
    """

    to: str
    of_bridge: BridgeTask | None
    file: str
    lines: bytes
    left_out: int
    ids: list[str]


class FollowLines(Tagged, frozen=True):
    """The wish to see what tasks print from now on. Tool -> dispatcher.

    Arguments:
        task_id: of one task; None: all.
    """

    task_id: str | None


class RunMeasured(Tagged, frozen=True):
    """What was measured of one run of a task. Executor -> dispatcher.

    Arguments:
        sample: an encoded :class:`raycelery.executor.profiling.sample.Sample`, for whoever asks.
    """

    sample: bytes


# -- from bridges ------------------------------------------------------------------------------------------------------


class BridgeMessage(Plain, frozen=True):
    """A broker's message that a bridge has taken.

    Arguments:
        identity: the same when it is delivered again, another for a retry of its task.
        task_id: Celery's.
        redelivered: whether the broker may have delivered it before, so that it may be running already.
        payload: an encoded :class:`raycelery.protocol.messages.BridgedTask` or ``BridgedCall``, for the executor.
    """

    identity: str
    task_id: str
    redelivered: bool
    payload: bytes


class Batch(Plain, frozen=True):
    """Messages of one task that an executor runs one after the other.

    Arguments:
        batch_id: the bridge's own number.
        task: name of the task.
        queue: the broker's queue.
        lane: key of a lane that was defined before.
        time_limit: hard, in seconds, or None.
        quick: whether they are expected to be short, so that nobody needs to hear that one has begun.
        messages: in order.
    """

    batch_id: int
    task: str
    queue: str
    lane: str
    time_limit: float | None
    quick: bool
    messages: list[BridgeMessage]


class RunBatches(Tagged, frozen=True):
    """Batches to be run. Bridge -> dispatcher.

    Arguments:
        batches: one for each free slot of the bridge's pool, at most.
    """

    batches: list[Batch]


class RecallBatch(Tagged, frozen=True):
    """The wish that what has not begun of a batch is given back. Bridge -> dispatcher.

    Arguments:
        batch_id: the bridge's own number.
    """

    batch_id: int


class KillMessage(Tagged, frozen=True):
    """The wish that the run of a message is ended at once. Bridge -> dispatcher.

    Arguments:
        batch_id: the bridge's own number.
        index: of the message in the batch.
    """

    batch_id: int
    index: int


class NewCode(Tagged, frozen=True):
    """The wish that executors end after what they run: the project may have changed. Bridge -> dispatcher."""


BridgeFrame = RunBatches | RecallBatch | KillMessage | NewCode
ToDispatcher = Hello | Changes | Watch | Ask | TaskLines | FollowLines | RunMeasured | BridgeFrame


# -- from the dispatcher -----------------------------------------------------------------------------------------------


class Acknowledged(Tagged, frozen=True):
    """Frames of submissions that are in the journal, and need not be sent again. Dispatcher -> client.

    Arguments:
        frame_ids: their numbers.
    """

    frame_ids: list[int]


class Welcome(Tagged, frozen=True):
    """The first frame to who has said who it is. Dispatcher -> client or bridge.

    Arguments:
        epoch: the name of the journal: another one knows nothing of what was acknowledged before.
    """

    epoch: str


class LargeValuesLost(Tagged, frozen=True):
    """The process that held all large values has died: they are to be stored anew. Dispatcher -> client or executor."""


class Full(Tagged, frozen=True):
    """The disk that has the journal is full, so that submissions wait, or has room again. Dispatcher -> client.

    Arguments:
        where: path of the journal; "" where there is room again.
    """

    where: str


class Result(Plain, frozen=True):
    """The result of a task that has ended.

    Arguments:
        task_id: its.
        state: Celery's.
        payload: the encoded meta; None where the result is large and nobody waits for it yet.
    """

    task_id: str
    state: str
    payload: bytes | None


class Results(Tagged, frozen=True):
    """Results of tasks that were watched. Dispatcher -> client, executor or bridge.

    Arguments:
        results: one or several.
    """

    results: list[Result]


class Answer(Tagged, frozen=True):
    """The answer to a question. Dispatcher -> who asked.

    Arguments:
        question_id: number of the question.
        value: what the question is answered with, see :mod:`raycelery.protocol.questions`.
    """

    question_id: int
    value: msgspec.Raw


class Refusal(Tagged, frozen=True):
    """A question that cannot be answered. Dispatcher -> who asked.

    Arguments:
        question_id: number of the question.
        error: name of an exception's class, see :func:`raycelery.protocol.refusals.error_of`.
        text: why.
    """

    question_id: int
    error: str
    text: str


class Lines(Tagged, frozen=True):
    """What a task prints and logs. Dispatcher -> client or bridge that asked for the task, and who follows.

    Arguments:
        node: Ray's id of the node.
        file: name of the file there that has it, too.
        lines: an encoded list of :class:`raycelery.logs.lines.Line`.
        left_out: how many lines there were besides.
    """

    node: str
    file: str
    lines: bytes
    left_out: int


class BridgeReport(Plain, frozen=True):
    """What became of a message of a bridge.

    Arguments:
        batch_id: the bridge's own number.
        index: of the message in the batch.
        event: what happened.
    """

    batch_id: int
    index: int
    event: Event


class BatchReports(Tagged, frozen=True):
    """What became of messages. Dispatcher -> bridge.

    Arguments:
        reports: in order.
    """

    reports: list[BridgeReport]


# -- from the dispatcher to executors ----------------------------------------------------------------------------------


class Run(Tagged, frozen=True):
    """What is to be run, in this order, after what it was given before. Dispatcher -> executor.

    Arguments:
        assignments: messages, chords and batches.
        codes: of tasks that travel by value, which it was not told of before.
    """

    assignments: list[Assignment | ChordAssignment | BatchAssignment]
    codes: list[DefineCode] = field(default_factory=list)


class Recall(Tagged, frozen=True):
    """The wish that it gives back what it has not begun. Dispatcher -> executor."""


class RecallFromBatch(Tagged, frozen=True):
    """The wish that it gives back what it has not begun of a batch. Dispatcher -> executor.

    Arguments:
        seq: the scheduler's number of the batch.
    """

    seq: int


class LookForChanges(Tagged, frozen=True):
    """Another program has come: has the project changed since it was imported? Dispatcher -> executor."""


class SendLines(Tagged, frozen=True):
    """Whether it is to send all that tasks print, because somebody follows. Dispatcher -> executor.

    Arguments:
        on: whether.
    """

    on: bool


class SendEvents(Tagged, frozen=True):
    """Whether it is to send Celery's task events, because somebody listens. Dispatcher -> executor.

    Arguments:
        on: whether.
    """

    on: bool


class SendSamples(Tagged, frozen=True):
    """Whether it is to measure what it runs. Dispatcher -> executor.

    Arguments:
        on: whether.
    """

    on: bool


class UseTimeLimits(Tagged, frozen=True):
    """Time limits that were set by remote control. Dispatcher -> executor.

    Arguments:
        limits: soft and hard, in seconds, by task; all that were ever set.
    """

    limits: dict[str, tuple[Seconds | None, Seconds | None]]


class Stop(Tagged, frozen=True):
    """It is to end once it has done what it was given. Dispatcher -> executor."""


FromDispatcher = (
    Acknowledged | Welcome | Full | LargeValuesLost | Results | Answer | Refusal | Lines | BatchReports
    | Run | Recall | RecallFromBatch | LookForChanges | SendLines | SendEvents | SendSamples | UseTimeLimits | Stop
)  # fmt: skip

to_dispatcher: Decoder[ToDispatcher] = Decoder(ToDispatcher)
from_dispatcher: Decoder[FromDispatcher] = Decoder(FromDispatcher)
