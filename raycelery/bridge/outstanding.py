"""The pool's outstanding messages: what Celery's worker has given it, and has not been told the end of.

A message waits until one of the pool's slots is free, is sent to the dispatcher in a batch, and is settled by what is
reported of it. What has not begun can be recalled from its batch, and goes back to the broker where others may run it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from typing import Any

from raycelery.bridge.apply_result import ApplyResult
from raycelery.bridge.batch import Batch, Batching
from raycelery.bridge.dispatcher_client import DispatcherClient
from raycelery.bridge.placement import Placement
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import frames
from raycelery.protocol.frames import KillMessage, RecallBatch, RunBatches
from raycelery.protocol.reports import Began, Called, Event, Lost, Raised, Returned, Unbegun

logger = logging.getLogger(__name__)

#: Messages that may be fetched ahead for each slot while all that is known of is short.
AHEAD = 64
#: Seconds without any progress after which what has not begun is recalled.
STUCK_SECONDS = 0.25


class Outstanding:
    """Owns all that changes with a message on its way through the pool.

    Methods may be called from any thread. With an event loop it is always the loop's. Without one, Celery's consumer,
    its timer, its autoscaler and the thread that reads what the dispatcher reports call them.
    """

    def __init__(self) -> None:
        #: Guards everything below, and the acknowledgement of the messages: Celery's callbacks are called with it held.
        #: They may call the pool in turn, so it is reentrant.
        self.lock = threading.RLock()
        #: Messages that may run at once; where the worker scales by itself, also the most that this may become.
        self.limit = 0
        self.max_limit: int | None = None
        self._client: DispatcherClient
        self._placement: Placement
        self._waiting: deque[ApplyResult] = deque()
        #: Batches that were sent and have not ended, by id.
        self._batches: dict[int, Batch] = {}
        self._batch_ids = itertools.count(1)
        self._batching = Batching()
        #: How many messages count as slow.
        self._slow = 0
        #: When something was reported last, by `time.monotonic`.
        self._progressed = time.monotonic()
        #: What runs, by process; the processes that ran something last, in order.
        self._by_pid: dict[int, ApplyResult] = {}
        self._processes: dict[int, None] = {}
        #: Whether the worker is ending: nothing more begins.
        self._draining = False

    def start(self, client: DispatcherClient, placement: Placement) -> None:
        """Use a connection to the dispatcher; nothing may be added before."""
        with self.lock:
            self._client, self._placement = client, placement

    # -- what others ask ----------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        with self.lock:
            return not self._waiting and not self._batches

    def results(self) -> list[ApplyResult]:
        """Return what has not ended."""
        with self.lock:
            sent = [result for batch in self._batches.values() for result in batch.results if batch.holds(result)]
            return [*sent, *self._waiting]

    def requests(self) -> list[Any]:
        """Return Celery's requests of the messages that have not ended."""
        return [result.request for result in self.results() if result.request is not None]

    def running(self, pid: int) -> ApplyResult | None:
        """Return what a process runs."""
        with self.lock:
            return self._by_pid.get(pid)

    def room(self) -> int:
        """Return how many messages more should be fetched: only what can begin now or very soon."""
        with self.lock:
            most = self.max_limit or self.limit
            unresolved = len(self._waiting) + sum(batch.left for batch in self._batches.values())
            if unresolved < most:
                return most - unresolved
            return max(0, (most - self._slow) * AHEAD - unresolved)

    def is_stuck(self) -> bool:
        """Return whether all slots are taken, and have been for a while without any progress."""
        with self.lock:
            most = self.max_limit or self.limit
            return len(self._batches) >= most and time.monotonic() - self._progressed > 2 * STUCK_SECONDS

    def all_quick(self) -> bool:
        """Return whether something runs, and all of it and all that waits is expected to be short."""
        with self.lock:
            return bool(self._batches) and not self._slow

    def info(self) -> dict[str, Any]:
        """Return what ``celery inspect stats`` shows of the pool's state."""
        with self.lock:
            return {
                "max-concurrency": self.limit,
                "processes": list(self._processes),
                "running": len(self._batches),
                "waiting": len(self._waiting),
            }

    # -- messages in, batches out -------------------------------------------------------------------------------

    def add(self, result: ApplyResult) -> bool:
        """Take a message; return False if it went back to the broker at once, as the worker is ending."""
        with self.lock:
            if self._draining and result.request is not None:
                result.requeue()
                return False
            result.slow = self._batching.short_mean(result) is None
            self._slow += result.slow
            self._waiting.append(result)
            return True

    def scale_up_to(self, max_limit: int | None) -> None:
        """Bound how far the worker scales by itself; None where it does not."""
        with self.lock:
            self.max_limit = max_limit

    def grow(self, slots: int) -> None:
        """Change how many messages may run at once; those that run go on."""
        with self.lock:
            self.limit = max(0, self.limit + slots)

    def send_batches(self) -> None:
        """Send what waits, as long as slots are free."""
        with self.lock:
            batches = []
            while self._waiting and len(self._batches) < self.limit:
                free = self.limit - len(self._batches)
                taken, quick = self._batching.take(self._waiting, -(-len(self._waiting) // free))
                results = [result for result in taken if not self._forget_if_revoked(result)]
                if results:
                    try:
                        batches.append(self._batch_of(results, quick))
                    except Exception as exc:  # of a task's options, or of what its message holds
                        for result in results:
                            result.fail(exc)
                            self._forget(result)
            if batches:
                self._client.send(RunBatches(batches))

    def _batch_of(self, results: list[ApplyResult], quick: bool) -> frames.Batch:
        first = results[0]
        task = self._placement.place(first.task, first.queue)
        messages = [
            frames.BridgeMessage(result.identity, result.id, result.redelivered, result.payload(task.module, task.code))
            for result in results
        ]
        self._client.define(task.definitions)
        batch_id = next(self._batch_ids)
        self._batches[batch_id] = Batch(batch_id, results, quick)
        return frames.Batch(batch_id, first.task, first.queue, task.lane, first.hard_limit, quick, messages)

    # -- what is reported ---------------------------------------------------------------------------------------

    def take_reports(self) -> None:
        """Tell Celery what became of messages, and send more where slots are free now."""
        with self.lock:
            for report in self._client.reports():
                if report is None:
                    self._reconnect()
                    continue
                batch = self._batches.get(report.batch_id)
                if batch is None:
                    continue
                result = batch.results[report.index]
                if batch.holds(result) and not result.ended:
                    try:
                        self._on_event(batch, result, report.event)
                    except Exception:  # it is about one message, and the worker goes on
                        logger.exception("the outcome of task %s cannot be recorded", result.id)
            if self._draining:
                self.requeue_waiting()
            elif self._waiting:
                self.send_batches()

    def _on_event(self, batch: Batch, result: ApplyResult, event: Event) -> None:
        self._progressed = time.monotonic()
        if isinstance(event, Began):
            result.pid = event.pid
            self._by_pid[result.pid] = result
            result.accept(event.pid)
            if result.terminating is not None:
                self._client.send(KillMessage(batch.batch_id, result.index))
            return
        batch.left -= 1
        batch.progressed = self._progressed
        if not batch.left:
            del self._batches[batch.batch_id]
        if isinstance(event, Unbegun):
            result.batch_id = None
            if result.stale or (result.terminating is not None and result.revoked()):
                self._forget(result)
            else:
                self._waiting.appendleft(result)
            return
        if isinstance(event, (Returned, Called, Raised)) and event.pid not in self._processes:
            self._processes[event.pid] = None
            while len(self._processes) > max(1, self.limit):
                del self._processes[next(iter(self._processes))]
        if isinstance(event, (Returned, Called)):
            self._batching.note(result.task, event.seconds)
        result.end(event)
        self._forget(result)

    def _forget(self, result: ApplyResult) -> None:
        self._slow -= result.slow
        result.slow = False
        result.batch_id = None
        if result.pid:
            self._by_pid.pop(result.pid, None)

    def _forget_if_revoked(self, result: ApplyResult) -> bool:
        if not result.revoked():
            return False
        self._forget(result)
        return True

    def _reconnect(self) -> None:
        """Send everything again: a message joins its run if that goes on; those of a dispatcher that ended are lost."""
        epoch = self._client.epoch
        while True:
            try:
                self._client.reconnect()
                break
            except DispatcherUnreachable as exc:
                logger.error("cannot reach the dispatcher: %s", exc)
                time.sleep(1.0)
        batches, self._batches = self._batches, {}
        same = self._client.epoch == epoch
        for batch in batches.values():
            for result in batch.results:
                if result.ended:
                    continue
                if result.accepted and not same:
                    result.end(Lost("the dispatcher, and its executors with it, ended while it ran"))
                    self._forget(result)
                else:
                    result.batch_id, result.redelivered = None, True
                    self._waiting.append(result)

    # -- what takes too long, and the end -----------------------------------------------------------------------

    def recall_stuck(self) -> None:
        """Recall what has not begun from batches that were expected to be short and are not."""
        with self.lock:
            now = time.monotonic()
            for batch in self._batches.values():
                if batch.quick and not batch.recalled and now - batch.progressed > STUCK_SECONDS:
                    batch.recalled = True
                    self._client.send(RecallBatch(batch.batch_id))
                    running = batch.first_left()
                    if running is not None and not running.slow:
                        running.slow = True
                        self._slow += 1
            if self._waiting and self.is_stuck():
                self.requeue_waiting()

    def requeue_waiting(self) -> None:
        """Return what waits to the broker; another worker may have room for it."""
        with self.lock:
            waiting, self._waiting = self._waiting, deque()
            for result in reversed(waiting):
                if result.request is None or result.accepted:
                    self._waiting.appendleft(result)
                    continue
                result.requeue()
                self._forget(result)

    def drain(self) -> None:
        """Begin nothing more: what has not begun goes back to the broker."""
        with self.lock:
            self._draining = True
            for batch_id in self._batches:
                self._client.send(RecallBatch(batch_id))
            self.requeue_waiting()

    def forget_unbegun(self) -> None:
        """Forget what the broker delivers again, as its connection was lost; what runs goes on."""
        with self.lock:
            for result in self._waiting:
                self._forget(result)
            self._waiting.clear()
            for batch in self._batches.values():
                for result in batch.results:
                    result.stale = not result.accepted
                self._client.send(RecallBatch(batch.batch_id))

    def leave_running(self, result: ApplyResult) -> None:
        """Wait no longer for a message, which goes on in the cluster."""
        with self.lock:
            if result.batch_id is not None:
                self._batches.pop(result.batch_id, None)
            self._forget(result)

    def terminate(self, result: ApplyResult) -> None:
        """End the run of a message at once; one that has not begun is dropped if it was revoked."""
        with self.lock:
            if result.batch_id is None:
                if result in self._waiting and result.revoked():
                    self._waiting.remove(result)
                    self._forget(result)
                return
            batch = self._batches.get(result.batch_id)
            if batch is not None and batch.left > 1:
                # Only what runs may be killed, and this may not be what runs: what has not begun is reported first.
                self._client.send(RecallBatch(batch.batch_id))
            else:
                self._client.send(KillMessage(result.batch_id, result.index))

    def kill_all(self) -> None:
        """End all runs at once."""
        with self.lock:
            for batch in self._batches.values():
                for result in batch.results:
                    if not result.ended:
                        self._client.send(KillMessage(batch.batch_id, result.index))
