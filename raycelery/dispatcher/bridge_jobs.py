"""What the dispatcher does for bridges: Celery workers that consume a broker and execute on Ray, see raycelery.bridge.

A bridge sends *bundles*: messages of one task that an executor runs one after the other. Each of them is a *job*. The
broker keeps the messages, and Celery's worker does their bookkeeping; so bundles are not in the journal, and the bridge
is told what becomes of its jobs. One task id runs once at a time, whichever bridges got it: a message that was
delivered again takes part in the run that goes on, or gets the outcome of the one that has ended.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from raycelery.protocol import framing
from raycelery.scheduler.model import Message

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher
    from raycelery.dispatcher.connection import Connection

logger = logging.getLogger(__name__)

#: Outcomes that are remembered for messages which are delivered again, and losses that are counted.
REMEMBERED = 20_000
#: Outcomes that are larger, in bytes, are not remembered.
OUTCOME_BYTES = 16_384
#: Outcomes of a job, by the kind of event that tells of it.
_OUTCOMES = frozenset({"ok", "failed", "error"})
#: A job that gave its message back to the broker has ended, and will run again.
_ENDS = _OUTCOMES | {"rejected"}
#: What is counted where the event does not tell by itself: Celery's tracer fails for a retry, too.
_COUNTED = {"ok": "succeeded", "error": "failed", "rejected": "rejected", "terminated": "revoked"}

#: Where a job was asked for: the connection, and the bridge's numbers for bundle and job.
Place = tuple["Connection", int, int]
Event = tuple[Any, ...]


class Job:
    """One message of a bundle.

    Arguments:
        identity: of the message: the same when it is delivered again, another for a retry of its task.
        task_id: Celery's.
        payload: what the executor is told, pickled.
        place: who asked for it.
    """

    __slots__ = ("bundle", "ended", "identity", "payload", "places", "task_id")

    def __init__(self, identity: str, task_id: str, payload: bytes, place: Place) -> None:
        self.identity = identity
        self.task_id = task_id
        self.payload = payload
        self.places = [place]
        self.bundle = 0
        self.ended = False

    def tell(self, event: Event) -> None:
        """Tell whoever asked for it what became of it."""
        for conn, bundle, index in self.places:
            conn.jobs.append((bundle, index, event))
            conn.dirty()


class Bridges:
    """The jobs of all bridges.

    Arguments:
        dispatcher: whose.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._bundles: dict[int, tuple[Message, list[Job]]] = {}
        #: Jobs that have not ended, by task id; those that wait for one of the same id.
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, deque[tuple[Job, tuple[Any, ...]]]] = {}
        self._outcomes: OrderedDict[str, Event] = OrderedDict()
        self._losses: OrderedDict[str, int] = OrderedDict()

    # -- what bridges say ---------------------------------------------------------------------------------------

    def on_frame(self, conn: Connection, frame: tuple[Any, ...]) -> None:
        """Take bundles, or a wish that concerns one of them."""
        kind = frame[0]
        if kind == "bundles":
            for bundle in frame[1]:
                self._take(conn, bundle)
        elif kind == "recall_jobs":
            for seq in self._of(conn, frame[1]):
                self._recall(seq)
        elif kind == "kill_job":
            self._kill(conn, frame[1], frame[2])
        elif kind == "new_code":
            scheduler = self._dispatcher.scheduler
            scheduler.retire(list(scheduler.executors), time.time())
        self._dispatcher.turn_soon()

    def _take(self, conn: Connection, bundle: tuple[Any, ...]) -> None:
        number, kind, fields = bundle
        fresh = []
        for index, (identity, task_id, again, payload) in enumerate(fields):
            place = (conn, number, index)
            other = self._jobs.get(task_id)
            if again and identity in self._outcomes:
                Job(identity, task_id, b"", place).tell(self._outcomes[identity])
            elif again and other is not None and other.identity == identity:
                other.places.append(place)
            else:
                job = Job(identity, task_id, payload, place)
                if other is not None:
                    self._waiting.setdefault(task_id, deque()).append((job, kind))
                else:
                    self._jobs[task_id] = job
                    fresh.append(job)
        if fresh:
            self._submit(fresh, kind)

    def _submit(self, jobs: list[Job], kind: tuple[Any, ...]) -> None:
        task, queue, lane, time_limit, quick = kind
        payload = [quick, [(index, job.payload) for index, job in enumerate(jobs)]]
        message = Message(jobs[0].task_id, task, queue, lane, payload, time_limit=time_limit, bridged=True)
        dispatcher = self._dispatcher
        dispatcher.scheduler.submit(message, time.time())
        dispatcher.journal.append("", framing.pack("numbered", message.seq))
        self._bundles[message.seq] = (message, jobs)
        for job in jobs:
            job.bundle = message.seq

    def _of(self, conn: Connection, number: int) -> list[int]:
        return [
            seq
            for seq, (_, jobs) in self._bundles.items()
            if any(place[0] is conn and place[1] == number for job in jobs for place in job.places)
        ]

    def _recall(self, seq: int) -> None:
        """Have what was not begun of a bundle given back."""
        message, jobs = self._bundles[seq]
        if message.place == "executor":
            self._dispatcher.executor_manager.tell(message.executor, "unbundle", seq)
        elif message.place == "stream":
            scheduler = self._dispatcher.scheduler
            scheduler.withdraw(message)
            scheduler.gone(message)
            del self._bundles[seq]
            for job in jobs:
                self._not_begun(job)

    def _kill(self, conn: Connection, number: int, index: int) -> None:
        for seq in self._of(conn, number):
            message, jobs = self._bundles[seq]
            job = next((job for job in jobs if (conn, number, index) in job.places), None)
            if job is None or job.ended:
                continue
            if message.place != "executor":
                self._recall(seq)
                continue
            scheduler = self._dispatcher.scheduler
            state = scheduler.executors[message.executor]
            if state.running() is message:
                scheduler.kill(state, seq, "terminated", f"task {job.task_id} was terminated")

    def gone(self, conn: Connection) -> None:
        """Take note that a bridge has ended.

        What its executors run goes on: the result is written by the executor, and if the message is delivered again,
        whoever gets it takes part. The rest is dropped: its messages were not acknowledged.
        """
        for seq, (_, jobs) in list(self._bundles.items()):
            for job in jobs:
                job.places = [place for place in job.places if place[0] is not conn]
            if not any(job.places for job in jobs):
                self._recall(seq)
        for task_id, waiting in list(self._waiting.items()):
            kept = deque(entry for entry in waiting if entry[0].places[0][0] is not conn)
            if kept:
                self._waiting[task_id] = kept
            else:
                del self._waiting[task_id]

    def looking(self, seq: int, index: int) -> list[Connection]:
        """Return the bridges that asked for a job."""
        _, jobs = self._bundles.get(seq, (None, []))
        return [place[0] for place in jobs[index].places] if index < len(jobs) else []

    # -- what becomes of jobs -----------------------------------------------------------------------------------

    def on_report(self, node: str, seq: int, index: int, event: Event) -> None:
        """Take what an executor on a node says of a job."""
        bundle = self._bundles.get(seq)
        if bundle is None:
            return
        job = bundle[1][index]
        if event[0] == "unbegun":
            self._not_begun(job)
        elif event[0] in _ENDS:
            if event[0] in _OUTCOMES and len(event[1]) <= OUTCOME_BYTES:
                _remember(self._outcomes, job.identity, event)
            self._losses.pop(job.identity, None)
            if not job.ended:
                outcome = event[4] if event[0] == "failed" else _COUNTED[event[0]]
                self._dispatcher.outcomes.note(bundle[0], outcome, event[2], node, time.time())
            self._end(job, event)
        else:
            job.tell(event)

    def finished(self, message: Message) -> None:
        """Take note that an executor is done with a bundle."""
        _, jobs = self._bundles.pop(message.seq, (None, []))
        for job in jobs:
            self._not_begun(job)

    def returned(self, message: Message) -> None:
        """Take note that a bundle will not be run to its end; ``settle_reason`` and ``reason`` tell why."""
        _, jobs = self._bundles.pop(message.seq, (None, []))
        left = [job for job in jobs if not job.ended]
        settle_reason, reason = message.settle_reason, message.reason
        if settle_reason in ("undeliverable", "infeasible"):
            for job in left:
                self._count(message, "undeliverable")
                self._end(job, ("undeliverable", reason))
            return
        for job in left[1:]:
            self._not_begun(job)
        if left:
            self._count(message, str(settle_reason))
            self._end(left[0], self._loss(left[0], str(settle_reason), reason))

    def _count(self, message: Message, settle_reason: str) -> None:
        outcome = _COUNTED.get(settle_reason, "failed")
        self._dispatcher.outcomes.note(message, outcome, 0.0, "", time.time())

    def _loss(self, job: Job, settle_reason: str, reason: str) -> Event:
        if settle_reason not in ("lost", "timeout"):
            return (settle_reason, reason)
        if not job.places:
            logger.error("task %s was lost, and so was the bridge that had its message: %s", job.task_id, reason)
        losses = self._losses.get(job.identity, 0) + 1
        _remember(self._losses, job.identity, losses)
        most = self._dispatcher.limits.max_deliveries
        if settle_reason == "lost" and losses >= most > 1:
            return (
                "undeliverable",
                f"it was delivered {losses} times and its executor died each time (ray_max_deliveries={most}); "
                f"the last time: {reason}",
            )
        return (settle_reason, reason)

    def _not_begun(self, job: Job) -> None:
        if not job.ended:
            self._end(job, ("unbegun",))

    def _end(self, job: Job, event: Event) -> None:
        if job.ended:
            return
        job.ended = True
        job.tell(event)
        if self._jobs.get(job.task_id) is job:
            del self._jobs[job.task_id]
        waiting = self._waiting.get(job.task_id)
        if waiting:
            following, kind = waiting.popleft()
            if not waiting:
                del self._waiting[job.task_id]
            self._jobs[following.task_id] = following
            self._submit([following], kind)
            self._dispatcher.turn_soon()


def _remember(where: OrderedDict[str, Any], key: str, value: Any) -> None:
    where[key] = value
    where.move_to_end(key)
    if len(where) > REMEMBERED:
        where.popitem(last=False)
