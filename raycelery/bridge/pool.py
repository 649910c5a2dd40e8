"""The pool of Celery's worker that executes on Ray.

Implements https://docs.celeryq.dev/en/stable/internals/reference/celery.concurrency.base.html. What it is given goes to
the application's dispatcher, in bundles, and what executors report goes to the callbacks of Celery's ``Request``: so
acknowledgements, retries, revocation, events and all else that the worker decides stay Celery's.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.concurrency.base import BasePool

from raycelery.app.settings import give_defaults
from raycelery.bridge.ack_timeout import Keeper
from raycelery.bridge.apply_result import Job
from raycelery.bridge.batch import Bundle, Runtimes
from raycelery.bridge.call import TRACERS, Call
from raycelery.bridge.dispatcher_client import Link
from raycelery.bridge.hub_waker import Waker
from raycelery.bridge.placement import Placing
from raycelery.errors import DispatcherUnreachable

logger = logging.getLogger(__name__)

#: Messages that may be fetched ahead for each slot while all that is known of is short.
AHEAD = 64
#: Seconds without any progress after which what has not begun is called back.
STUCK_SECONDS = 0.25
#: Seconds between looks.
LOOK_SECONDS = 0.1
#: Seconds that a cold shutdown waits for executors that were told to end.
END_SECONDS = 10.0


class Pool(BasePool):  # type: ignore[misc]
    """Executes messages on Ray; ``limit`` (the worker's ``-c``) is how many run at once in the whole cluster.

    Processes are Ray's, on any node: ``terminate_job`` by process id only finds those that run a message now, and ends
    them with SIGKILL whatever signal is named. ``worker_proc_alive_timeout`` and the like have no meaning.
    """

    uses_semaphore = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limit: int = int(self.limit)
        give_defaults(self.app)
        from raycelery.bridge import consumer_step

        # Celery makes the consumer, with the steps that are known by then, after the pool.
        self.app.steps["consumer"].add(consumer_step.Intake)
        consumer_step.choose_transport(self.app)
        #: Bounded by the consumer's step where the worker scales by itself.
        self.most: int | None = None
        #: Of RabbitMQ's messages; the consumer's step makes it.
        self.keeper: Keeper | None = None
        self.link: Link
        self.placing: Placing
        self._waiting: deque[Job] = deque()
        self._bundles: dict[int, Bundle] = {}
        self._numbers = itertools.count(1)
        self._runtimes = Runtimes()
        self._slow = 0
        self._hub: Any = None
        self._waker: Waker | None = None
        self._handing = False
        #: The event loop's timer, while there is something to look at.
        self._looking: Any = None
        #: Called when there is something to do after a time without.
        self.on_busy: Callable[[], None] | None = None
        self._moved = time.monotonic()
        #: What runs, by process; the processes that ran something last.
        self._pids: dict[int, Job] = {}
        self._processes: dict[int, None] = {}
        self._draining = False
        #: Without an event loop, the thread that reads reports runs the callbacks.
        self.lock = threading.RLock()

    # -- start and end ------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        options = self.options
        self._waker = Waker(self.listen)
        self.link = Link(self.app, self._waker.wake)
        self.placing = Placing(
            self.app,
            self.link.session,
            {
                "worker_max_tasks_per_child": options.get("maxtasksperchild"),
                "worker_max_memory_per_child": options.get("max_memory_per_child"),
            },
        )

        # A worker that starts runs the code that is there now, and not what executors imported before a deployment.
        self.restart()

    def restart(self) -> None:
        """Have executors end after what they run; those that follow import the project anew."""
        self.link.send("new_code")

    def register_with_event_loop(self, loop: Any) -> None:
        self._hub = loop
        if self._waker is not None:
            self._waker.register(loop)
        # Celery clears its timers when it loses the connection to the broker.
        self._looking = None
        self._handing = False
        self._hand_over_soon()

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        return not self._waiting and not self._bundles

    def on_close(self) -> None:
        """Take no more; what is there is done."""

    def on_stop(self) -> None:
        """Wait until all is done (or, after a cold shutdown, has been ended)."""
        deadline = None
        while not self.idle:
            from celery.worker import state

            if state.should_terminate and deadline is None:
                deadline = time.monotonic() + END_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(0.01)
            self.listen()
            self.look()
            if self._hub is not None:
                self._hub.fire_timers()
        self._close()

    def on_terminate(self) -> None:
        """End what is running."""
        for bundle in list(self._bundles.values()):
            for job in bundle.jobs:
                if not job.ended:
                    self.link.send("kill_job", bundle.number, job.index)
        self._close()

    def _close(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.close()
            self.link.close()
        if self.keeper is not None:
            self.keeper.close()

    def flush(self) -> None:
        """Celery's consumer lost its connection: what has not begun will be delivered again."""

    # -- what comes in ------------------------------------------------------------------------------------------

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Job:
        for name in ("timeout", "soft_timeout"):
            options[name] = options.get(name) or self.options.get(name)
        job = Job(self, args, options) if target in TRACERS else Call(self, target, args or (), kwargs or {}, options)
        if self._draining and job.request is not None:
            job.give_back()
            return job
        with self.lock:
            job.slow = self._runtimes.mean(job) is None
            self._slow += job.slow
            self._waiting.append(job)
        self._hand_over_soon()
        return job

    def jobs(self) -> list[Job]:
        """Return what has not ended."""
        given = [job for bundle in self._bundles.values() for job in bundle.jobs if job.bundle is bundle]
        return [*given, *self._waiting]

    def room(self) -> int:
        """Return how many messages more should be fetched: only what can begin, now or very soon."""
        most = self.most or self.limit
        unresolved = len(self._waiting) + sum(bundle.left for bundle in self._bundles.values())
        if unresolved < most:
            return most - unresolved
        return max(0, (most - self._slow) * AHEAD - unresolved)

    def has_room(self) -> bool:
        """Return whether another message should be fetched."""
        return self.room() > 0

    def _hand_over_soon(self) -> None:
        if self._hub is None:
            self._hand_over()
            return
        if not self._handing:
            self._handing = True
            self._hub.call_soon(self._hand_over)
        if self._looking is None and not self.idle:
            self._looking = self._hub.call_repeatedly(LOOK_SECONDS, self.look)
            if self.on_busy is not None:
                self.on_busy()

    def _hand_over(self) -> None:
        self._handing = False
        with self.lock:
            self._bundle_up()

    def _bundle_up(self) -> None:
        bundles = []
        while self._waiting and len(self._bundles) < self.limit:
            free = self.limit - len(self._bundles)
            jobs, quick = self._runtimes.take(self._waiting, -(-len(self._waiting) // free))
            kept = []
            for job in jobs:
                if job.withdrawn():
                    self._forget(job)
                else:
                    kept.append(job)
            if kept:
                try:
                    bundles.append(self._bundle(kept, quick))
                except Exception as exc:  # of a task's options, or of what its message holds
                    for job in kept:
                        job.invalid(exc)
                        self._forget(job)
        if bundles:
            self.link.send("bundles", bundles)

    def _bundle(self, jobs: list[Job], quick: bool) -> tuple[Any, ...]:
        first = jobs[0]
        place = self.placing.place(first.task, first.queue)
        fields = [(job.identity, job.id, job.again, job.payload(place.module, place.code)) for job in jobs]
        self.link.define(place.definitions)
        number = next(self._numbers)
        self._bundles[number] = Bundle(number, jobs, quick)
        return number, (first.task, first.queue, place.lane, first.hard_limit, quick), fields

    # -- what comes back ----------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear what became of jobs."""
        with self.lock:
            for said in self.link.said():
                if said is None:
                    self._reconnect()
                    continue
                number, index, event = said
                bundle = self._bundles.get(number)
                if bundle is None:
                    continue
                job = bundle.jobs[index]
                if job.bundle is bundle and not job.ended:
                    try:
                        self._on_event(bundle, job, event)
                    except Exception:  # it is about one message, and the worker goes on
                        logger.exception("the outcome of task %s cannot be recorded", job.id)
            if self._draining:
                self.give_back()
            elif self._waiting:
                self._bundle_up()

    def _on_event(self, bundle: Bundle, job: Job, event: tuple[Any, ...]) -> None:
        kind = event[0]
        self._moved = time.monotonic()
        if kind == "began":
            job.pid = event[1]
            self._pids[job.pid] = job
            job.accept(event[1])
            if job.terminating is not None:
                self.link.send("kill_job", bundle.number, job.index)
            return
        bundle.left -= 1
        bundle.moved = self._moved
        if not bundle.left:
            del self._bundles[bundle.number]
        if kind == "unbegun":
            job.bundle = None
            if job.stale or (job.terminating is not None and job.withdrawn()):
                self._forget(job)
            else:
                self._waiting.appendleft(job)
            return
        if kind in ("ok", "failed") and event[3] not in self._processes:
            self._processes[event[3]] = None
            while len(self._processes) > max(1, self.limit):
                del self._processes[next(iter(self._processes))]
        if kind == "ok" and event[2] is not None:
            self._runtimes.note(job.task, event[2])
        job.end(event)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self._slow -= job.slow
        job.slow = False
        job.bundle = None
        if job.pid:
            self._pids.pop(job.pid, None)

    def _reconnect(self) -> None:
        """Hand everything over again: what goes on is found again, what ended with the dispatcher is lost."""
        epoch = self.link.epoch
        while True:
            try:
                self.link.reconnect()
                break
            except DispatcherUnreachable as exc:
                logger.error("cannot reach the dispatcher: %s", exc)
                time.sleep(1.0)
        bundles, self._bundles = self._bundles, {}
        same = self.link.epoch == epoch
        for bundle in bundles.values():
            for job in bundle.jobs:
                if job.ended:
                    continue
                if job.accepted and not same:
                    job.end(("lost", "the dispatcher, and its executors with it, ended while it ran"))
                    self._forget(job)
                else:
                    job.bundle, job.again = None, True
                    self._waiting.append(job)

    # -- what takes too long ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Call back what has not begun, where something that was expected to be short is not."""
        if self.idle and self._looking is not None:
            self._looking.cancel()
            self._looking = None
        now = time.monotonic()
        for bundle in self._bundles.values():
            if bundle.quick and not bundle.recalled and now - bundle.moved > STUCK_SECONDS:
                bundle.recalled = True
                self.link.send("recall_jobs", bundle.number)
                running = bundle.running()
                if running is not None and not running.slow:
                    running.slow = True
                    self._slow += 1
        if self._waiting and self.stuck():
            self.give_back()

    def stuck(self) -> bool:
        """Return whether all slots are taken, and have been for a while without any progress."""
        most = self.most or self.limit
        return len(self._bundles) >= most and time.monotonic() - self._moved > 2 * STUCK_SECONDS

    def all_quick(self) -> bool:
        """Return whether there is something, and all of it is expected to be short."""
        return bool(self._bundles) and not self._slow

    def give_back(self) -> None:
        """Return what waits behind long messages to the broker; somebody else may have room for it."""
        waiting, self._waiting = self._waiting, deque()
        for job in reversed(waiting):
            if job.request is None or job.accepted:
                self._waiting.appendleft(job)
                continue
            job.give_back()
            self._forget(job)

    # -- the end ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin nothing more: what has not begun goes back to the broker."""
        with self.lock:
            self._draining = True
            for bundle in self._bundles.values():
                self.link.send("recall_jobs", bundle.number)
            self.give_back()

    def abandon(self) -> None:
        """Wait no longer for what runs: what is not acknowledged runs anew elsewhere, the rest goes on unattended."""
        for job in self.jobs():
            request = job.request
            if request is not None and request.task.acks_late and not request.acknowledged:
                logger.warning("task %s is still running: it is ended, and its message goes back to the broker", job.id)
                request.cancel(self, emit_retry=False)
            else:
                logger.warning("task %s is still running: it goes on in the cluster without this worker", job.id)
                if job.bundle is not None:
                    self._bundles.pop(job.bundle.number, None)
                self._forget(job)

    def forget_unbegun(self) -> None:
        """Forget what the broker delivers again, for its connection was lost; what runs goes on."""
        for job in list(self._waiting):
            self._forget(job)
        self._waiting.clear()
        for bundle in self._bundles.values():
            for job in bundle.jobs:
                job.stale = not job.accepted
            self.link.send("recall_jobs", bundle.number)

    # -- what Celery's control asks -----------------------------------------------------------------------------

    def terminate(self, job: Job | None = None) -> None:
        """End one job; without one, all: Celery's own meaning of the name."""
        if job is None:
            super().terminate()
            return
        bundle = job.bundle
        if bundle is None:
            if job in self._waiting and job.withdrawn():
                self._waiting.remove(job)
                self._forget(job)
        elif bundle.left > 1:
            # Only what runs may be ended, and this may not be it.
            self.link.send("recall_jobs", bundle.number)
        else:
            self.link.send("kill_job", bundle.number, job.index)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        job = self._pids.get(pid)
        if job is not None and not job.ended:
            job.terminate(signal or 15)

    def grow(self, n: int = 1) -> None:
        """Let more messages run at once."""
        self.limit += n
        self._hand_over_soon()

    def shrink(self, n: int = 1) -> None:
        """Let fewer messages run at once; those that run go on."""
        self.limit = max(0, self.limit - n)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "processes": list(self._processes),
            "max-tasks-per-child": self.options.get("maxtasksperchild") or "N/A",
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
            "running": len(self._bundles),
            "waiting": len(self._waiting),
        }
