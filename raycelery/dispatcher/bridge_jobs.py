"""What the dispatcher does for bridges: Celery workers that consume a broker and execute on Ray, see raycelery.bridge.

A bridge sends *batches*: messages of one task that an executor runs one after the other. To the scheduler a batch is
one message; each message in it is a *job*. The broker keeps the messages, and Celery's worker does their bookkeeping,
so batches are not in the journal, and the bridge is told what becomes of its jobs.

One task id runs once at a time, whichever bridges got it: a message that was delivered again joins the run that goes
on, or gets the outcome of the one that has ended.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from raycelery.dispatcher import steady
from raycelery.protocol import framing
from raycelery.protocol.frames import (
    Batch,
    BridgeFrame,
    BridgeReport,
    KillMessage,
    NewCode,
    RecallBatch,
    RecallFromBatch,
    RunBatches,
)
from raycelery.protocol.messages import BatchAssignment
from raycelery.protocol.records import Numbered
from raycelery.protocol.reports import (
    Began,
    Called,
    CannotRun,
    Event,
    ExecutorEvent,
    Lost,
    Outcome,
    Raised,
    Rejected,
    Returned,
    Terminated,
    TimedOut,
    Unbegun,
    Undeliverable,
)
from raycelery.scheduler import events
from raycelery.scheduler.model import Message
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from raycelery.dispatcher.journal import Journal

logger = logging.getLogger(__name__)

#: Outcomes that are remembered for messages which are delivered again, and losses that are counted.
REMEMBERED = 20_000
#: Outcomes that are larger, in bytes, are not remembered.
OUTCOME_BYTES = 16_384
#: Events with which a run ends: one that was rejected may come again, and is run again then.
_Ended = Returned | Called | Raised | CannotRun | Rejected
#: What a bridge is told of a job whose run the scheduler saw end, by the reason; of others, that it is undeliverable.
_SETTLED: dict[str | None, type[Terminated | TimedOut | Lost]] = {
    "terminated": Terminated,
    "timeout": TimedOut,
    "lost": Lost,
    "preempted": Lost,
}

Remembered = TypeVar("Remembered")


class BridgeConnection(Protocol):
    """The connection of a bridge."""

    #: Reports that have not been sent.
    jobs: list[BridgeReport]

    def dirty(self) -> None:
        """Have the reports sent soon."""


class Requester(NamedTuple):
    """A bridge that asked for a job: its connection, its id of the batch, and the job's position there."""

    connection: BridgeConnection
    batch_id: int
    position: int


class Job:
    """One message of a batch.

    Arguments:
        identity: of the message: the same when it is delivered again, another for a retry of its task.
        task_id: Celery's.
        payload: what the executor is told, encoded.
        requester: the first bridge that asked for it.
    """

    __slots__ = ("ended", "identity", "payload", "requesters", "task_id")

    def __init__(self, identity: str, task_id: str, payload: bytes, requester: Requester) -> None:
        self.identity = identity
        self.task_id = task_id
        self.payload = payload
        self.requesters = [requester]
        self.ended = False

    def report(self, event: Event) -> None:
        """Tell the bridges that asked for it what became of it."""
        for requester in self.requesters:
            requester.connection.jobs.append(BridgeReport(requester.batch_id, requester.position, event))
            requester.connection.dirty()


class BridgeJobs:
    """The jobs of all bridges.

    Arguments:
        scheduler: places the batches.
        journal: is told the numbers that the scheduler gave to batches, so that a restart gives none twice.
        tell: sends a frame to an executor, if it is connected.
        count: counts how a job ended: the batch's message, outcome, seconds that it ran, node, time.
        on_change: called when there may be something for the scheduler to decide.
        max_deliveries: after so many losses of one message its task fails for good.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        journal: Journal,
        *,
        tell: Callable[..., None],
        count: Callable[[Message, Outcome, float | None, str, float], None],
        on_change: Callable[[], None],
        max_deliveries: int,
    ) -> None:
        self._scheduler = scheduler
        self._journal = journal
        self._tell = tell
        self._count = count
        self._on_change = on_change
        self._max_deliveries = max_deliveries
        #: Batches that have not ended, by the number that the scheduler gave their message.
        self._batches: dict[int, tuple[Message, list[Job]]] = {}
        #: Jobs that have not ended, by task id; those that wait for the end of one with the same id.
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, deque[tuple[Job, Batch]]] = {}
        #: The last outcomes, and how often a message's run was lost, by identity.
        self._outcomes: OrderedDict[str, Event] = OrderedDict()
        self._losses: OrderedDict[str, int] = OrderedDict()

    # -- what bridges say ---------------------------------------------------------------------------------------

    def on_frame(self, conn: BridgeConnection, frame: BridgeFrame) -> None:
        """Take a frame of a bridge: batches, or a request that concerns one of them."""
        match frame:
            case RunBatches(batches):
                for batch in batches:
                    self._take(conn, batch)
            case RecallBatch(batch_id):
                for seq in self._batches_of(conn, batch_id):
                    self._recall(seq)
            case KillMessage(batch_id, index):
                self._kill(Requester(conn, batch_id, index))
            case NewCode():
                self._scheduler.handle(events.Retire(list(self._scheduler.view.executors)), steady.now())
        self._on_change()

    def _take(self, conn: BridgeConnection, batch: Batch) -> None:
        fresh = []
        for index, message in enumerate(batch.messages):
            requester = Requester(conn, batch.batch_id, index)
            identity, task_id = message.identity, message.task_id
            other = self._jobs.get(task_id)
            if message.redelivered and identity in self._outcomes:
                Job(identity, task_id, b"", requester).report(self._outcomes[identity])
            elif message.redelivered and other is not None and other.identity == identity:
                other.requesters.append(requester)
            else:
                job = Job(identity, task_id, message.payload, requester)
                if other is not None:
                    self._waiting.setdefault(task_id, deque()).append((job, batch))
                else:
                    self._jobs[task_id] = job
                    fresh.append(job)
        if fresh:
            self._submit(fresh, batch)

    def _submit(self, jobs: list[Job], batch: Batch) -> None:
        """Have jobs of a batch run, or one that had waited for its turn."""
        payload = BatchAssignment(0, batch.quick, [job.payload for job in jobs])
        message = Message(
            jobs[0].task_id, batch.task, batch.queue, batch.lane, payload, time_limit=batch.time_limit, bridged=True
        )
        self._scheduler.handle(events.Submit(message), steady.now())
        self._journal.append("", framing.pack(Numbered(message.seq)))
        self._batches[message.seq] = (message, jobs)

    def _batches_of(self, conn: BridgeConnection, batch_id: int) -> list[int]:
        """Return the numbers of the batches that have jobs of a bridge's batch: some may have joined another's runs."""
        return [
            seq
            for seq, (_, jobs) in self._batches.items()
            if any(one.connection is conn and one.batch_id == batch_id for job in jobs for one in job.requesters)
        ]

    def _recall(self, seq: int) -> None:
        """Have what has not begun of a batch given back."""
        message, jobs = self._batches[seq]
        if message.at_executor:
            self._tell(message.executor_id, RecallFromBatch(seq))
        elif message.phase is MessagePhase.WAITING:
            self._scheduler.handle(events.Withdraw(message), steady.now())
            del self._batches[seq]
            for job in jobs:
                self._not_begun(job)

    def _kill(self, requester: Requester) -> None:
        for seq in self._batches_of(requester.connection, requester.batch_id):
            message, jobs = self._batches[seq]
            job = next((job for job in jobs if requester in job.requesters), None)
            if job is None or job.ended:
                continue
            if not message.at_executor:
                self._recall(seq)
                continue
            self._scheduler.handle(events.Terminate(message, f"task {job.task_id} was terminated"), steady.now())

    def message_of(self, task_id: str) -> Message | None:
        """Return the scheduler's message for the batch that has a task's message, if that has not ended."""
        job = self._jobs.get(task_id)
        return next((message for message, jobs in self._batches.values() if job in jobs), None)

    def gone(self, conn: BridgeConnection) -> None:
        """Take note that a bridge has ended.

        What its executors run goes on: the executor writes the result, and if the message is delivered again, the
        bridge that gets it joins the run. The rest is dropped: its messages were not acknowledged.
        """
        for seq, (_, jobs) in list(self._batches.items()):
            for job in jobs:
                job.requesters = [requester for requester in job.requesters if requester.connection is not conn]
            if not any(job.requesters for job in jobs):
                self._recall(seq)
        for task_id, waiting in list(self._waiting.items()):
            kept = deque(entry for entry in waiting if entry[0].requesters[0].connection is not conn)
            if kept:
                self._waiting[task_id] = kept
            else:
                del self._waiting[task_id]

    def connections_of(self, seq: int, index: int) -> list[BridgeConnection]:
        """Return the connections of the bridges that asked for a job."""
        _, jobs = self._batches.get(seq, (None, []))
        return [requester.connection for requester in jobs[index].requesters] if index < len(jobs) else []

    # -- what becomes of jobs -----------------------------------------------------------------------------------

    def on_report(self, node: str, seq: int, index: int, event: ExecutorEvent) -> None:
        """Take what an executor reports of a job.

        Arguments:
            node: Ray's id of the executor's node.
            seq: the number of the batch.
            index: the job's in the batch.
            event: what happened.
        """
        if seq not in self._batches:
            return
        message, jobs = self._batches[seq]
        job = jobs[index]
        match event:
            case Unbegun():
                self._not_begun(job)
            case Began():
                job.report(event)
            case _:
                outcome, seconds, size = _outcome_of(event)
                if size is not None and size <= OUTCOME_BYTES:
                    _remember(self._outcomes, job.identity, event)
                self._losses.pop(job.identity, None)
                if not job.ended:
                    self._count(message, outcome, seconds, node, steady.now())
                self._end(job, event)

    def finished(self, message: Message) -> None:
        """Take note that an executor is done with a batch."""
        _, jobs = self._batches.pop(message.seq, (None, []))
        for job in jobs:
            self._not_begun(job)

    def returned(self, message: Message) -> None:
        """Take note that a batch will not be run to its end; ``settle_reason`` and ``reason`` tell why."""
        _, jobs = self._batches.pop(message.seq, (None, []))
        left = [job for job in jobs if not job.ended]
        settle_reason, reason = message.settle_reason, message.reason
        if settle_reason in ("undeliverable", "infeasible"):
            for job in left:
                self._count(message, "failed", 0.0, "", steady.now())
                self._end(job, Undeliverable(reason))
            return
        # The first one ran; those behind it had not begun.
        for job in left[1:]:
            self._not_begun(job)
        if left:
            event = _SETTLED.get(settle_reason, Undeliverable)(reason)
            self._count(message, "revoked" if isinstance(event, Terminated) else "failed", 0.0, "", steady.now())
            self._end(left[0], self._loss(left[0], event) if isinstance(event, (Lost, TimedOut)) else event)

    def _loss(self, job: Job, event: Lost | TimedOut) -> Event:
        if not job.requesters:
            logger.error("task %s was lost, and so was the bridge that had its message: %s", job.task_id, event.reason)
        losses = self._losses.get(job.identity, 0) + 1
        _remember(self._losses, job.identity, losses)
        most = self._max_deliveries
        if isinstance(event, Lost) and losses >= most > 1:
            return Undeliverable(
                f"it was delivered {losses} times and its executor died each time (ray_max_deliveries={most}); "
                f"the last time: {event.reason}"
            )
        return event

    def _not_begun(self, job: Job) -> None:
        if not job.ended:
            self._end(job, Unbegun())

    def _end(self, job: Job, event: Event) -> None:
        if job.ended:
            return
        job.ended = True
        job.report(event)
        if self._jobs.get(job.task_id) is job:
            del self._jobs[job.task_id]
        waiting = self._waiting.get(job.task_id)
        if waiting:
            following, batch = waiting.popleft()
            if not waiting:
                del self._waiting[job.task_id]
            self._jobs[following.task_id] = following
            self._submit([following], batch)
            self._on_change()


def _outcome_of(event: _Ended) -> tuple[Outcome, float, int | None]:
    """Return how a run ended, after how many seconds, and the event's size in bytes; None where it is no outcome."""
    match event:
        case Returned(text, seconds):
            return "succeeded", seconds, len(text)
        case Called(value, seconds):
            return "succeeded", seconds, len(value)
        case Raised(einfo, seconds):
            # Celery's tracer fails for a retry, too.
            return event.outcome, seconds, len(einfo)
        case Rejected(_, seconds):
            return "rejected", seconds, None
        case CannotRun(einfo):
            return "failed", 0.0, len(einfo)


def _remember(where: OrderedDict[str, Remembered], key: str, value: Remembered) -> None:
    where[key] = value
    where.move_to_end(key)
    if len(where) > REMEMBERED:
        where.popitem(last=False)
