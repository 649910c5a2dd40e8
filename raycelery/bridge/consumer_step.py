"""When a bridge takes messages from its broker, and how it ends: a step of Celery's consumer.

See https://docs.celeryq.dev/en/stable/userguide/extending.html#consumer. A message is fetched only when it can begin
now or very soon, so a long task never holds others back that another worker could run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import Any

from celery import bootsteps
from celery.app.task import Task
from celery.worker import state
from celery.worker.strategy import default
from kombu.common import ignore_errors

from raycelery.bridge.ack_timeout import PREFIX, AckTimeout
from raycelery.bridge.logs import shorten
from raycelery.bridge.outstanding import AHEAD, Outstanding
from raycelery.bridge.sources import Sources
from raycelery.bridge.visibility import VisibilityTimeout

logger = logging.getLogger(__name__)

#: Seconds between checks for messages that wait behind long ones.
CHECK_SECONDS = 0.1
#: Seconds between two adaptations of the prefetch count of brokers that push messages (AMQP), and how many times the
#: pool must be found idle before the count is lowered.
ADAPT_SECONDS = 0.02
IDLE_TIMES = 10
#: Messages that may be fetched for each slot while a rate limit holds them back; as many as stock workers fetch.
RATE_LIMITED = 4


def choose_transport(app: Any) -> None:
    """Choose how a worker's connections to its broker behave.

    Those to Redis fetch and acknowledge many messages at a time. Others are opened again after errors of a channel.

    Arguments:
        app: the worker's application; called before it connects.
    """
    if app.connection_for_read().get_transport_cls().driver_type == "redis":
        from raycelery.bridge.redis_transport import Connection

        app.amqp.Connection = Connection
    else:
        # RabbitMQ closes channels, one for an acknowledgement that is late, and Celery's worker ends. Here it connects
        # again, and what runs goes on: its message, delivered again, takes part in the run.
        app.conf.broker_channel_error_retry = True


#: Errors that a malformed message raises and a connection does not.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _safe_task_handler(c: Any, sources: Sources) -> Callable[..., Any]:
    """Return a ``create_task_handler`` for the consumer whose handler notes the queue, and rejects what is no message.

    Celery's raises for some malformed messages, which ends the worker, and then the next one that gets the message.
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
                if isinstance(exc, c.connection_errors) and not isinstance(exc, _MALFORMED):
                    raise
                logger.critical("rejected an invalid message (%r): %.1024r %r", exc, message.headers, message.body)
                message.reject_log_error(logger, c.connection_errors)

        return on_message

    return create_task_handler


def _collects(app: Any) -> bool:
    """Return whether a task holds messages by a ``Strategy`` of its own, until it has enough (celery-batches)."""
    return any(task.Strategy not in (Task.Strategy, default) for task in app.tasks.values())


class ConsumerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Regulates how many messages come from the broker to the pool; part of workers with the bridge's pool only.

    Without an event loop Celery's timer thread calls what is called repeatedly; the lock of :class:`Outstanding` keeps
    it and the consumer's thread apart.

    Arguments:
        c: Celery's consumer.
    """

    requires = ("celery.worker.consumer.tasks:Tasks", "celery.worker.consumer.control:Control")

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        shorten()
        #: Whether the consumer is cancelled as nothing more could begin; whether the prefetch count is raised.
        self._paused = False
        self._ahead = False
        #: How many times in a row the pool was found idle.
        self._idle_times = 0
        #: Whether the broker is Redis, which the worker asks for messages.
        self._redis = False
        #: The timer that adapts the prefetch count, while there is something to do.
        self._adapting: Any = None
        self._sources = Sources()
        #: Acknowledgements that may not have been sent when the connection was lost.
        self._acks: list[str] = []
        if self.include_if(c):
            self._redis = c.conninfo.transport.driver_type == "redis"
            # On Redis the prefetch count is only an upper bound, see `_fetch_if_room`; on others it is the bound. Where
            # tasks collect messages, the project has chosen the count, or 0, which is no bound.
            collects, own = _collects(c.app), c.prefetch_multiplier
            if self._redis:
                c.prefetch_multiplier = 0 if collects and not own else max(own, AHEAD)
            elif not collects:
                c.prefetch_multiplier = 1
            c.initial_prefetch_count = (c.controller.max_concurrency or c.controller.concurrency) * (
                c.prefetch_multiplier
            )

    def include_if(self, c: Any) -> bool:
        """Return whether the worker's pool is the bridge's."""
        return isinstance(getattr(c.pool, "outstanding", None), Outstanding)

    def start(self, c: Any) -> None:
        """Begin to take messages; called again for each new connection to the broker."""
        outstanding: Outstanding = c.pool.outstanding
        outstanding.scale_up_to(c.controller.max_concurrency)
        self._paused = self._ahead = False
        c.create_task_handler = _safe_task_handler(c, self._sources)
        self._sources.watch(c.task_consumer.channel)
        c.controller.wait_for_soft_shutdown = partial(self._wait_softly, c)
        if self._redis:
            self._start_redis(c)
        else:
            outstanding.forget_unbegun()
            self._adapting = None
            c.pool.on_busy = partial(self._begin_to_adapt, c)
            if c.hub is None or not outstanding.idle:
                self._begin_to_adapt(c)
            timeout = c.app.conf.ray_consumer_timeout
            if timeout and c.connection.transport.driver_type == "amqp":
                self._check_ack_timeout(c, timeout)
        if c.hub is None:
            c.timer.call_repeatedly(CHECK_SECONDS, c.pool.check)

    # -- Redis, which is asked for messages ---------------------------------------------------------------------

    def _start_redis(self, c: Any) -> None:
        self._fetch_if_room(c)
        channel, outstanding = c.task_consumer.channel, c.pool.outstanding
        if hasattr(channel, "room"):
            channel.room, channel.idle = outstanding.room, lambda: outstanding.idle
            if self._acks:
                channel.qos.acks += self._acks
            self._acks = channel.qos.acks
        visibility = VisibilityTimeout(channel)
        visibility.take_over(outstanding.requests())
        c.timer.call_repeatedly(visibility.interval, visibility.extend)

    def _fetch_if_room(self, c: Any) -> None:
        """Have kombu ask the pool before it fetches from Redis."""
        channel, outstanding = c.task_consumer.channel, c.pool.outstanding
        qos = channel.qos
        within = qos.can_consume

        def can_consume(_: Any) -> bool:
            if channel._in_poll:
                return True  # Redis may have taken a message off the queue already
            held = sum(len(bucket.contents) for bucket in c.task_buckets.values() if bucket)
            return outstanding.room() > 0 and held < outstanding.limit * RATE_LIMITED and bool(within())

        qos.can_consume = MethodType(can_consume, qos)

    # -- RabbitMQ's acknowledgement timeout ---------------------------------------------------------------------

    def _check_ack_timeout(self, c: Any, timeout: float) -> None:
        """Have messages replaced by copies that are held for longer than RabbitMQ waits, in seconds."""
        outstanding = c.pool.outstanding
        if c.pool.ack_timeout is None:
            self._warn_of_ack_timeout(c, timeout)
            c.pool.ack_timeout = AckTimeout(c.app, timeout, outstanding.lock)
        ack_timeout: AckTimeout = c.pool.ack_timeout

        def check() -> None:
            with outstanding.lock:
                ack_timeout.check(c.task_consumer.channel, [*state.requests.values(), *outstanding.requests()])

        c.timer.call_repeatedly(ack_timeout.interval, check)

    def _warn_of_ack_timeout(self, c: Any, timeout: float) -> None:
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

    # -- brokers that push messages -----------------------------------------------------------------------------

    def _begin_to_adapt(self, c: Any) -> None:
        if self._adapting is None:
            self._adapting = c.timer.call_repeatedly(ADAPT_SECONDS, self._adapt, (c,))

    def _adapt(self, c: Any) -> None:
        """Ask the broker for more ahead while all is short, and for nothing while nothing could begin."""
        outstanding: Outstanding = c.pool.outstanding
        with outstanding.lock:
            if outstanding.is_stuck():
                if not self._paused:
                    self._paused = True
                    ignore_errors(c, c.task_consumer.cancel)
                outstanding.requeue_waiting()
            elif self._paused and outstanding.room() > 0:
                self._paused = False
                c.task_consumer.consume()
            self._idle_times = self._idle_times + 1 if outstanding.idle else 0
            # Between one message and the next the pool may be idle for a moment.
            ahead = outstanding.all_quick() or (self._ahead and 0 < self._idle_times < IDLE_TIMES)
            if ahead != self._ahead:
                self._ahead = ahead
                more = (AHEAD // 2 - 1) * outstanding.limit
                (c.qos.increment_eventually if self._ahead else c.qos.decrement_eventually)(more)
            if c.hub is not None and outstanding.idle and not (self._ahead or self._paused):
                # The pool's `on_busy` begins it again.
                self._adapting.cancel()
                self._adapting = None

    # -- the end ------------------------------------------------------------------------------------------------

    def stop(self, c: Any) -> None:
        """In a warm shutdown wait for what runs, while remote control and the timers are still at work."""
        if c.blueprint.state != bootsteps.CLOSE or state.should_terminate or not c.connection:
            return
        if not self._drain(c, c.app.conf.ray_drain_seconds):
            c.pool.abandon()
            self._drain(c, None)

    def _wait_softly(self, c: Any) -> None:
        """Do what Celery does before a cold shutdown, but take reports of what ends meanwhile."""
        conf = c.app.conf
        seconds = conf.worker_soft_shutdown_timeout
        if seconds > 0 and c.connection and (state.active_requests or conf.worker_enable_soft_shutdown_on_idle):
            logger.warning("Initiating Soft Shutdown, terminating in %s seconds", seconds)
            self._drain(c, seconds)

    def _drain(self, c: Any, seconds: float | None) -> bool:
        """Begin nothing more and wait for what runs; return False if some still does after so many seconds."""
        outstanding: Outstanding = c.pool.outstanding
        ignore_errors(c, c.task_consumer.cancel)
        outstanding.drain()
        deadline = None if seconds is None else time.monotonic() + seconds
        turn = self._turns(c)
        while not outstanding.idle and not state.should_terminate:
            if deadline is not None and time.monotonic() > deadline:
                return False
            try:
                next(turn)
            except c.connection_errors as exc:
                logger.warning("lost the broker while waiting for running tasks: %s", exc)
                break
        return True

    def _turns(self, c: Any) -> Iterator[Any]:
        """Run the consumer's loop, one turn for each item."""
        if c.hub is not None:
            while True:
                yield from c.hub.create_loop()
        while True:
            c.perform_pending_operations()
            try:
                c.connection.drain_events(timeout=CHECK_SECONDS)
            except TimeoutError:
                pass
            yield
