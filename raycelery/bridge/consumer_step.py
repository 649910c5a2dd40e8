"""When a bridge takes messages from its broker, and how it ends: a step of Celery's consumer.

See https://docs.celeryq.dev/en/stable/userguide/extending.html. A message is fetched only when it can begin now or very
soon, so a long task never holds others back that somebody else could run.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from types import MethodType
from typing import Any

from celery import bootsteps
from celery.app.task import Task
from celery.worker import state
from celery.worker.strategy import default
from kombu.common import ignore_errors

from raycelery.bridge.ack_timeout import PREFIX, Keeper
from raycelery.bridge.pool import AHEAD, LOOK_SECONDS, Pool
from raycelery.bridge.sources import Sources
from raycelery.bridge.visibility import Leases

logger = logging.getLogger(__name__)

#: Seconds between looks at how much is to be asked for ahead of brokers that send by themselves, and how many looks
#: find nothing to do before less is.
ADAPT_SECONDS = 0.02
IDLE_LOOKS = 10
#: Messages that may be fetched for each slot while a rate limit holds them back; as many as stock workers fetch.
HELD_BACK = 4


def choose_transport(app: Any) -> None:
    """Have a worker's connections to Redis fetch and acknowledge many messages at a time, and others outlive errors."""
    if app.connection_for_read().get_transport_cls().driver_type == "redis":
        from raycelery.bridge.redis_transport import Connection

        app.amqp.Connection = Connection
    else:
        # RabbitMQ closes channels, one for an acknowledgement that is late, and Celery's worker ends. Here it connects
        # again, and what runs goes on: its message, delivered again, takes part in the run.
        app.conf.broker_channel_error_retry = True


#: What a malformed message leads to, and a connection does not.
_OF_MESSAGES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _guarded(c: Any, sources: Sources) -> Any:
    """Return the consumer's ``create_task_handler``, whose handler survives every message and notes its queue.

    Celery's raises for some that are malformed, which ends the worker, and the next one that gets the message.
    """
    make = type(c).create_task_handler

    def create_task_handler(*args: Any, **kwargs: Any) -> Any:
        handle = make(c, *args, **kwargs)

        def on_message(message: Any) -> None:
            sources.note(message)
            try:
                handle(message)
            except Exception as exc:  # anything can be wrong with a message
                # kombu counts KeyError among the errors of connections.
                if isinstance(exc, c.connection_errors) and not isinstance(exc, _OF_MESSAGES):
                    raise
                logger.critical("rejected an invalid message (%r): %.1024r %r", exc, message.headers, message.body)
                message.reject_log_error(logger, c.connection_errors)

        return on_message

    return create_task_handler


def _collects(app: Any) -> bool:
    """Return whether a task holds messages by a ``Strategy`` of its own, until it has enough (celery-batches)."""
    return any(task.Strategy not in (Task.Strategy, default) for task in app.tasks.values())


class Intake(bootsteps.StartStopStep):  # type: ignore[misc]
    """Opens and closes the tap between broker and pool.

    Arguments:
        c: Celery's consumer.
    """

    requires = ("celery.worker.consumer.tasks:Tasks", "celery.worker.consumer.control:Control")

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self._paused = False
        self._ahead = False
        self._idle_looks = 0
        self._by_tags = False
        self._adapting: Any = None
        self._sources = Sources()
        #: Acknowledgements that the lost connection may have left unsent.
        self._acks: list[str] = []
        if isinstance(c.pool, Pool):
            self._by_tags = c.conninfo.transport.driver_type == "redis"
            # The virtual transports' own count is the upper bound only; on others it is the bound. Where tasks collect
            # messages, the project has chosen how many, or 0, which is no bound.
            collects, own = _collects(c.app), c.prefetch_multiplier
            if self._by_tags:
                c.prefetch_multiplier = 0 if collects and not own else max(own, AHEAD)
            elif not collects:
                c.prefetch_multiplier = 1
            c.initial_prefetch_count = (c.controller.max_concurrency or c.controller.concurrency) * (
                c.prefetch_multiplier
            )

    def include_if(self, c: Any) -> bool:
        """Be part of workers with this pool only."""
        return isinstance(c.pool, Pool)

    def start(self, c: Any) -> None:
        """Begin to take messages; called again for each new connection to the broker."""
        pool: Pool = c.pool
        pool.most = c.controller.max_concurrency
        self._paused = self._ahead = False
        c.create_task_handler = _guarded(c, self._sources)
        self._sources.watch(c.task_consumer.channel)
        c.controller.wait_for_soft_shutdown = partial(self._wait_softly, c)
        if self._by_tags:
            self._gate(c)
            channel = c.task_consumer.channel
            if hasattr(channel, "room"):
                channel.room, channel.idle = pool.room, lambda: pool.idle
                if self._acks:
                    channel.qos.acks += self._acks
                self._acks = channel.qos.acks
            leases = Leases(channel)
            leases.adopt(job.request for job in pool.jobs())
            c.timer.call_repeatedly(leases.seconds, leases.renew)
        else:
            pool.forget_unbegun()
            self._adapting = None
            pool.on_busy = partial(self._begin_to_adapt, c)
            if c.hub is None or not pool.idle:
                self._begin_to_adapt(c)
            timeout = c.app.conf.ray_consumer_timeout
            if timeout and c.connection.transport.driver_type == "amqp":
                self._keep(c, timeout)
        if c.hub is None:
            c.timer.call_repeatedly(LOOK_SECONDS, pool.look)

    def _gate(self, c: Any) -> None:
        """Have kombu ask the pool before it fetches from Redis."""
        channel, pool = c.task_consumer.channel, c.pool
        qos = channel.qos
        within = qos.can_consume

        def can_consume(_: Any) -> bool:
            if channel._in_poll:
                return True  # Redis may have taken a message off the queue already
            held = sum(len(bucket.contents) for bucket in c.task_buckets.values() if bucket)
            return pool.has_room() and held < pool.num_processes * HELD_BACK and bool(within())

        qos.can_consume = MethodType(can_consume, qos)

    def _keep(self, c: Any, timeout: float) -> None:
        """Have messages kept that are held for longer than RabbitMQ puts up with."""
        pool: Pool = c.pool
        if pool.keeper is None:
            self._warn_of_timeout(c, timeout)
            pool.keeper = Keeper(c.app, timeout)
        keeper = pool.keeper

        def look() -> None:
            with pool.lock:
                held = [*state.requests.values(), *(job.request for job in pool.jobs() if job.request is not None)]
                keeper.look(c.task_consumer.channel, held)

        c.timer.call_repeatedly(keeper.seconds, look)

    def _warn_of_timeout(self, c: Any, timeout: float) -> None:
        limit = c.pool.options.get("timeout")
        late = sorted(
            name
            for name, task in c.app.tasks.items()
            if task.acks_late and not name.startswith("celery.") and (task.time_limit or limit or timeout) >= timeout
        )
        if late:
            logger.warning(
                "%s may run longer than RabbitMQ's consumer_timeout (%g s, set by ray_consumer_timeout): messages that "
                "are held for half of that time are acknowledged early and kept in queues of this worker, %s*, until "
                "their tasks end; a time_limit below it avoids that",
                ", ".join(late[:10]) + ("..." if len(late) > 10 else ""),
                timeout,
                PREFIX,
            )

    # -- brokers that send without being asked ------------------------------------------------------------------

    def _begin_to_adapt(self, c: Any) -> None:
        if self._adapting is None:
            self._adapting = c.timer.call_repeatedly(ADAPT_SECONDS, self._adapt, (c,))

    def _adapt(self, c: Any) -> None:
        """Ask the broker for more ahead while all is short, for nothing while nothing could begin."""
        pool: Pool = c.pool
        if pool.stuck():
            if not self._paused:
                self._paused = True
                ignore_errors(c, c.task_consumer.cancel)
            pool.give_back()
        elif self._paused and pool.has_room():
            self._paused = False
            c.task_consumer.consume()
        self._idle_looks = self._idle_looks + 1 if pool.idle else 0
        # Between one message and the next there may be nothing for a moment.
        ahead = pool.all_quick() or (self._ahead and 0 < self._idle_looks < IDLE_LOOKS)
        if ahead != self._ahead:
            self._ahead = ahead
            more = (AHEAD // 2 - 1) * pool.num_processes
            (c.qos.increment_eventually if self._ahead else c.qos.decrement_eventually)(more)
        if c.hub is not None and pool.idle and not (self._ahead or self._paused):
            # Until there is something again.
            self._adapting.cancel()
            self._adapting = None

    # -- the end ------------------------------------------------------------------------------------------------

    def stop(self, c: Any) -> None:
        """In a warm shutdown wait for what runs, with remote control and leases still at work."""
        if c.blueprint.state != bootsteps.CLOSE or state.should_terminate or not c.connection:
            return
        if not self._drain(c, c.app.conf.ray_drain_seconds):
            c.pool.abandon()
            self._drain(c, None)

    def _wait_softly(self, c: Any) -> None:
        """Do what Celery does before a cold shutdown, but hear what ends meanwhile."""
        conf = c.app.conf
        seconds = conf.worker_soft_shutdown_timeout
        if seconds > 0 and c.connection and (state.active_requests or conf.worker_enable_soft_shutdown_on_idle):
            logger.warning("Initiating Soft Shutdown, terminating in %s seconds", seconds)
            self._drain(c, seconds)

    def _drain(self, c: Any, seconds: float | None) -> bool:
        """Begin nothing more and wait for what runs; return False if some still does after so many seconds."""
        pool: Pool = c.pool
        ignore_errors(c, c.task_consumer.cancel)
        pool.drain()
        deadline = None if seconds is None else time.monotonic() + seconds
        turn = self._turns(c)
        while not pool.idle and not state.should_terminate:
            if deadline is not None and time.monotonic() > deadline:
                return False
            try:
                next(turn)
            except c.connection_errors as exc:
                logger.warning("lost the broker while waiting for running tasks: %s", exc)
                break
        return True

    def _turns(self, c: Any) -> Any:
        if c.hub is not None:
            while True:
                yield from c.hub.create_loop()
        while True:
            c.perform_pending_operations()
            try:
                c.connection.drain_events(timeout=LOOK_SECONDS)
            except TimeoutError:
                pass
            yield
