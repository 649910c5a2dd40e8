"""What the dispatcher has sent to an executor: batches to run, and instructions."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from raycelery.client.connection import Client
from raycelery.executor.batch import Batch
from raycelery.executor.eventer import Eventer
from raycelery.executor.output import OUTPUT
from raycelery.executor.sources import Sources

logger = logging.getLogger(__name__)


class Inbox:
    """Takes frames in the connection's reading thread, and hands batches and instructions to the running thread.

    What concerns batches that have not begun is done at once by the reading thread, while a task runs.

    """

    def __init__(self) -> None:
        self._client: Client
        self._eventer: Eventer
        #: Kind and item of each, in order.
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
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

    def use(self, client: Client, eventer: Eventer) -> None:
        """Report to the dispatcher by a connection whose frames come here; called before it is opened.

        Arguments:
            client: the connection.
            eventer: is told whether anybody listens to events.
        """
        self._client, self._eventer = client, eventer

    # -- the reading thread -------------------------------------------------------------------------------------

    def on_frame(self, frame: tuple[Any, ...]) -> None:
        """Take a frame of the dispatcher's."""
        kind = frame[0]
        if kind == "run":
            self._assign(frame[1], frame[2])
        elif kind == "recall_batch":
            with self._lock:
                batch = self._batches.get(frame[1])
            if batch is not None:
                self._client.report(*batch.take_back())
        elif kind == "recall":
            self._give_back()
        elif kind == "look":
            self._look_for_changes()
        elif kind == "follow":
            OUTPUT.followed = frame[1]
        elif kind == "events":
            self._eventer.enabled = frame[1]
        elif kind in ("stop", "closed", "limits", "measure"):
            self.put(kind, frame[1] if len(frame) > 1 else "")

    def _assign(self, messages: list[tuple[Any, ...]], codes: list[Any]) -> None:
        if codes:
            self.put("learn", codes)
        batches = [Batch.assigned(message) for message in messages]
        given_back = []
        with self._lock:
            if self._outdated:
                # What comes now is for an executor that imports the present code; bookkeeping is the same.
                given_back = [batch.seq for batch in batches if batch.settle_reason is None]
                batches = [batch for batch in batches if batch.settle_reason is not None]
            self._batches.update((batch.seq, batch) for batch in batches)
            for batch in batches:
                self.put("run", batch)
            outdated = self._outdated
        if outdated:
            self._client.report(("recalled", given_back))

    def _give_back(self) -> None:
        """Report all batches that have not begun as recalled."""
        kept, seqs = [], []
        with self._lock:
            self._idle = True
            while True:
                try:
                    kind, item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if kind == "run":
                    seqs.append(item.seq)
                    del self._batches[item.seq]
                else:
                    kept.append((kind, item))
            for kind, item in kept:
                self.put(kind, item)
        self._client.report(("recalled", seqs))

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
        self._client.report(("outdated",))

    # -- the running thread -------------------------------------------------------------------------------------

    def put(self, kind: str, item: Any) -> None:
        """Put in an instruction; any thread may."""
        self._queue.put((kind, item))

    def take(self) -> tuple[str, Any]:
        """Wait for the next batch ("run") or instruction, and return its kind and itself."""
        kind, item = self._queue.get()
        if kind == "run":
            with self._lock:
                was_idle, self._idle = self._idle, False
            if was_idle:
                # What an executor has not begun when it dies can run elsewhere.
                self._client.report(("begun",), more=True)
        return kind, item

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
