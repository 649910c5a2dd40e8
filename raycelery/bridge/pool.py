"""The pool of Celery's worker that executes on Ray.

Implements https://docs.celeryq.dev/en/stable/internals/reference/celery.concurrency.base.html. What it is given goes to
the application's dispatcher in batches, and what executors report goes to the callbacks of Celery's ``Request``: so
acknowledgements, retries, revocation, events and all else that the worker decides stay Celery's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.concurrency.base import BasePool
from celery.worker import state

from raycelery.app.settings import give_defaults
from raycelery.bridge import consumer_step
from raycelery.bridge.ack_timeout import AckTimeout
from raycelery.bridge.apply_result import ApplyResult
from raycelery.bridge.call import TRACERS, Call
from raycelery.bridge.consumer_step import CHECK_SECONDS, ConsumerStep
from raycelery.bridge.dispatcher_client import DispatcherClient
from raycelery.bridge.hub_waker import HubWaker
from raycelery.bridge.outstanding import Outstanding
from raycelery.bridge.placement import Placement
from raycelery.protocol.frames import NewCode

logger = logging.getLogger(__name__)

#: Seconds that a cold shutdown waits for executors that were told to end.
END_SECONDS = 10.0


class Pool(BasePool):  # type: ignore[misc]
    """Executes messages on Ray; ``limit`` (the worker's ``-c``) is how many run at once in the whole cluster.

    Processes are Ray's, on any node: ``terminate_job`` by process id only finds those that run a message now, and ends
    them with SIGKILL whatever signal is named. ``worker_proc_alive_timeout`` and the like have no meaning.

    Messages belong to :class:`Outstanding`, which any thread may call. What is kept here is touched by the worker's
    main thread only, which runs the event loop where there is one.
    """

    uses_semaphore = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self.outstanding = Outstanding()
        super().__init__(*args, **options)
        give_defaults(self.app)
        # Celery makes the consumer, with the steps that are known by then, after the pool.
        self.app.steps["consumer"].add(ConsumerStep)
        consumer_step.choose_transport(self.app)
        #: For messages of RabbitMQ; the consumer step makes it.
        self.ack_timeout: AckTimeout | None = None
        #: Called when there is something to do after a time without; set by the consumer step.
        self.on_busy: Callable[[], None] | None = None
        self._client: DispatcherClient
        #: Celery's event loop, if there is one; the pipe that wakes it, until the end.
        self._hub: Any = None
        self._waker: HubWaker | None = None
        #: Whether the event loop will send batches, and its timer while there is something to check.
        self._sending = False
        self._checking: Any = None

    @property
    def limit(self) -> int:
        """How many messages may run at once."""
        return self.outstanding.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self.outstanding.limit = int(limit)

    # -- start and end ------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        options = self.options
        self._waker = HubWaker(self.outstanding.take_reports)
        self._client = DispatcherClient(self.app, self._waker.wake)
        placement = Placement(
            self.app,
            self._client.session,
            {
                "worker_max_tasks_per_child": options.get("maxtasksperchild"),
                "worker_max_memory_per_child": options.get("max_memory_per_child"),
            },
        )
        self.outstanding.start(self._client, placement)
        # A worker that starts runs the code that is there now, and not what executors imported before a deployment.
        self.restart()

    def restart(self) -> None:
        """Have executors end after what they run; those that follow import the project anew."""
        self._client.send(NewCode())

    def register_with_event_loop(self, loop: Any) -> None:
        self._hub = loop
        if self._waker is not None:
            self._waker.register(loop)
        # Celery clears its timers when it loses the connection to the broker.
        self._checking = None
        self._sending = False
        self._send_soon()

    def on_close(self) -> None:
        """Take no more; what is there is done."""

    def on_stop(self) -> None:
        """Wait until all is done (or, after a cold shutdown, has been ended)."""
        deadline = None
        while not self.outstanding.idle:
            if state.should_terminate and deadline is None:
                deadline = time.monotonic() + END_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(0.01)
            self.outstanding.take_reports()
            self.check()
            if self._hub is not None:
                self._hub.fire_timers()
        self._close()

    def on_terminate(self) -> None:
        """End what is running."""
        self.outstanding.kill_all()
        self._close()

    def _close(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.close()
            self._client.close()
        if self.ack_timeout is not None:
            self.ack_timeout.close()

    def flush(self) -> None:
        """Do nothing where Celery's consumer lost its connection: the consumer step forgets what has not begun."""

    def abandon(self) -> None:
        """Wait no longer for what runs: what is not acknowledged runs anew elsewhere, the rest goes on unattended."""
        for result in self.outstanding.results():
            request = result.request
            if request is not None and request.task.acks_late and not request.acknowledged:
                logger.warning(
                    "task %s is still running: it is ended, and its message goes back to the broker", result.id
                )
                request.cancel(self, emit_retry=False)
            else:
                logger.warning("task %s is still running: it goes on in the cluster without this worker", result.id)
                self.outstanding.leave_running(result)

    # -- messages -----------------------------------------------------------------------------------------------

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> ApplyResult:
        for name in ("timeout", "soft_timeout"):
            options[name] = options.get(name) or self.options.get(name)
        terminate = self.outstanding.terminate
        result = (
            ApplyResult(args, options, terminate)
            if target in TRACERS
            else Call(target, args or (), kwargs or {}, options, terminate)
        )
        if self.outstanding.add(result):
            self._send_soon()
        return result

    def _send_soon(self) -> None:
        """Send what waits; with an event loop at the end of this turn, so that messages share batches."""
        if self._hub is None:
            self.outstanding.send_batches()
            return
        if not self._sending:
            self._sending = True
            self._hub.call_soon(self._send)
        if self._checking is None and not self.outstanding.idle:
            self._checking = self._hub.call_repeatedly(CHECK_SECONDS, self.check)
            if self.on_busy is not None:
                self.on_busy()

    def _send(self) -> None:
        self._sending = False
        self.outstanding.send_batches()

    def check(self) -> None:
        """Recall what waits behind long messages; without an event loop, Celery's timer thread calls this."""
        if self._checking is not None and self.outstanding.idle:
            self._checking.cancel()
            self._checking = None
        self.outstanding.recall_stuck()

    # -- what Celery's control asks -----------------------------------------------------------------------------

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        result = self.outstanding.running(pid)
        if result is not None and not result.ended:
            result.terminate(signal or 15)

    def grow(self, n: int = 1) -> None:
        """Let more messages run at once."""
        self.outstanding.grow(n)
        self._send_soon()

    def shrink(self, n: int = 1) -> None:
        """Let fewer messages run at once; those that run go on."""
        self.outstanding.grow(-n)

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            **self.outstanding.info(),
            "max-tasks-per-child": self.options.get("maxtasksperchild") or "N/A",
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
        }
