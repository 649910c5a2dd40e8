"""What the dispatcher has sent to an executor: batches to run, and instructions."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass

from raycelery.client.connection import Client, Closed
from raycelery.executor.batch import Batch
from raycelery.executor.begun import BegunFile
from raycelery.executor.eventer import Eventer
from raycelery.executor.output import OUTPUT
from raycelery.executor.sources import Sources
from raycelery.protocol.definitions import DefineCode
from raycelery.protocol.frames import (
    FromDispatcher,
    LookForChanges,
    Recall,
    RecallFromBatch,
    Run,
    SendEvents,
    SendLines,
    SendSamples,
    Stop,
    UseTimeLimits,
)
from raycelery.protocol.reports import Begun, Outdated, Recalled

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learn:
    """Code of tasks that travel by value, which is needed from now on."""

    codes: list[DefineCode]


#: What the running thread is told in between.
Instruction = Learn | UseTimeLimits | SendSamples | Closed | Stop


class Inbox:
    """Takes frames in the connection's reading thread, and hands batches and instructions to the running thread.

    What concerns batches that have not begun is done at once by the reading thread, while a task runs.

    """

    def __init__(self) -> None:
        self._client: Client
        self._eventer: Eventer
        self._begun: BegunFile
        #: In order.
        self._queue: queue.SimpleQueue[Batch | Instruction] = queue.SimpleQueue()
        #: Guards all below. No frame is sent with it held.
        self._lock = threading.Lock()
        #: Batches that have not ended, by the scheduler's number.
        self._batches: dict[int, Batch] = {}
        #: Whether the dispatcher takes this executor to have begun nothing.
        self._idle = True
        #: The project's files as they were imported; whether they have changed since.
        self._sources: Sources | None = None
        self._outdated = False
        #: Whether the task that runs waits for its subtasks.
        self._blocked = False

    def use(self, client: Client, eventer: Eventer, begun: BegunFile) -> None:
        """Report to the dispatcher by a connection whose frames come here; called before it is opened.

        Arguments:
            client: the connection.
            eventer: is told whether anybody listens to events.
            begun: is told what begins.
        """
        self._client, self._eventer, self._begun = client, eventer, begun

    # -- the reading thread -------------------------------------------------------------------------------------

    def on_frame(self, frame: FromDispatcher | Closed) -> None:
        """Take a frame of the dispatcher's, or the end of the connection."""
        match frame:
            case Run():
                self._assign(frame)
            case RecallFromBatch(seq):
                with self._lock:
                    batch = self._batches.get(seq)
                if batch is not None:
                    self._client.report(*batch.take_back())
            case Recall():
                self._give_back()
            case LookForChanges():
                self._look_for_changes()
            case SendLines(on):
                OUTPUT.followed = on
            case SendEvents(on):
                self._eventer.enabled = on
            case Closed():
                # The next dispatcher has others run what has not begun.
                self._take_unbegun()
                with self._lock:
                    begun = list(self._batches.values())
                for batch in begun:
                    batch.take_back()
                self.put(frame)
            case Stop() | UseTimeLimits() | SendSamples():
                self.put(frame)

    def _assign(self, run: Run) -> None:
        if run.codes:
            self.put(Learn(run.codes))
        batches = [Batch(assignment) for assignment in run.assignments]
        given_back = []
        with self._lock:
            if self._outdated:
                # What comes now is for an executor that imports the present code; bookkeeping is the same.
                given_back = [batch.seq for batch in batches if not batch.bookkeeping]
                batches = [batch for batch in batches if batch.bookkeeping]
            self._batches.update((batch.seq, batch) for batch in batches)
            for batch in batches:
                self.put(batch)
            outdated = self._outdated
        if outdated:
            self._client.report(Recalled(given_back))

    def _give_back(self) -> None:
        """Report all batches that have not begun as recalled."""
        self._client.report(Recalled(self._take_unbegun()))

    def _take_unbegun(self) -> list[int]:
        """Return the numbers of the batches that have not begun, and will not."""
        kept: list[Instruction] = []
        seqs = []
        with self._lock:
            self._idle = True
            while True:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if isinstance(item, Batch):
                    seqs.append(item.seq)
                    del self._batches[item.seq]
                else:
                    kept.append(item)
            for instruction in kept:
                self.put(instruction)
        return seqs

    def _look_for_changes(self) -> None:
        """Have this executor replaced if the project was changed since; another program has come that may know it."""
        with self._lock:
            sources = None if self._blocked or self._outdated else self._sources
        changed = None if sources is None else sources.changed()
        if changed is None:
            return
        with self._lock:
            self._outdated = True
        logger.info("%s has changed: this executor ends after its current task", changed)
        self._client.report(Outdated())

    # -- the running thread -------------------------------------------------------------------------------------

    def put(self, item: Batch | Instruction) -> None:
        """Put in an instruction; any thread may."""
        self._queue.put(item)

    def take(self) -> Batch | Instruction:
        """Wait for the next batch or instruction, and return it."""
        item = self._queue.get()
        if isinstance(item, Batch):
            self._begun.begin(item.seq)
            with self._lock:
                was_idle, self._idle = self._idle, False
            if was_idle:
                # What an executor has not begun when it dies can run elsewhere.
                self._client.report(Begun(), more=True)
        return item

    def end(self, batch: Batch) -> bool:
        """Take note that a batch has ended, before that is reported; return whether nothing is left to do."""
        with self._lock:
            self._batches.pop(batch.seq, None)
            self._idle = self._idle or self._queue.empty()
            return self._idle

    def block(self, blocked: bool) -> None:
        """Take note whether the task that runs waits for its subtasks."""
        with self._lock:
            self._blocked = blocked

    def watch(self, sources: Sources) -> None:
        """Have changes of the project's files reported from now on."""
        with self._lock:
            self._sources = sources
