"""The producer's side of direct mode: what Celery publishes becomes a submission to the dispatcher.

Celery's own ``AMQP.send_task_message`` stays in charge of options, routing and signals; in place of a kombu producer it
gets :class:`RayProducer`, whose ``publish`` puts the message into the client's buffer.
Follows https://docs.celeryq.dev/en/stable/internals/protocol.html (version 2).
"""

from __future__ import annotations

import logging
import os
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery.app.amqp import AMQP
from celery.utils.time import maybe_iso8601, maybe_make_aware
from celery.worker.strategy import proto1_to_proto2
from kombu.compression import compress
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.serialization import dumps as kombu_dumps
from kombu.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from raycelery.app.descriptions import Descriptions
from raycelery.app.options import TASK_OPTIONS, check_options
from raycelery.app.routing import Routes
from raycelery.app.settings import travels_as_is
from raycelery.app.standins import RayChannel, RayConnection, RayPool
from raycelery.app.urls import low_first
from raycelery.errors import ArgumentError, MessageError, OptionError
from raycelery.protocol import operations
from raycelery.protocol.messages import Submission, stamps_of, task_message
from raycelery.serialization import values

if TYPE_CHECKING:
    from celery import Celery


logger = logging.getLogger(__name__)


class RayProducer:
    """Publishes Celery messages to the dispatcher.

    Arguments:
        app: the application whose messages these are.
    """

    # What kombu's producers are told when they are made.
    exchange = Exchange("")
    routing_key = ""
    serializer = compression = on_return = None
    auto_declare = True

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.connection = RayConnection(app)
        self.channel = RayChannel(app)
        self.descriptions = Descriptions(app)
        self._routes = Routes(app)
        self._inline = int(app.conf.ray_inline_bytes)
        self._accepted = app.conf.accept_content
        self._low_first = low_first(app.conf)

    # Celery uses producers as context managers and releases them to their pool.
    def __enter__(self) -> RayProducer:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        return None

    def release(self) -> None:
        """Do nothing: one producer serves all threads."""

    close = release

    def revive(self, channel: Any) -> None:
        """Do nothing: the client reconnects by itself."""

    def declare(self) -> None:
        """Do nothing: queues and exchanges of tasks need no declaration."""

    def maybe_declare(self, entity: Any, retry: bool = False, **retry_policy: Any) -> bool:
        """Do nothing, for the same reason."""
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"the producer of direct mode has no {name!r}: it sends tasks and events only; for messages of your own "
            "use app.connection_for_write().Producer()"
        )

    def publish(
        self,
        body: Any,
        routing_key: str = "",
        exchange: Any = "",
        headers: dict[str, Any] | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        declare: Any = None,
        priority: int | None = None,
        retry: bool = False,
        retry_policy: Any = None,
        delivery_mode: Any = None,
        expiration: Any = None,
        timeout: Any = None,
        confirm_timeout: Any = None,
        **properties: Any,
    ) -> None:
        """Hand one message to the dispatcher; the arguments are those of ``kombu.Producer.publish``.

        Raises:
            ArgumentError: an argument cannot be pickled.
            OptionError: a per-call option is malformed or misspelt.
            QueueFull: the queue stayed full for ``ray_submit_timeout`` seconds.
            DispatcherUnreachable: there is no dispatcher to hand it to.
            MessageError: it is neither a task nor an event.
        """
        headers = headers or {}
        if "task" not in headers and self._publish_events(body):
            return
        if isinstance(body, dict):
            # task_protocol=1: Celery's worker, too, makes version 2 of it first.
            body, headers, _, _ = proto1_to_proto2(SimpleNamespace(headers=headers), body)
        name = headers["task"]
        if not isinstance(name, str):
            raise MessageError(f"the name of a task is a string, not {name!r}")
        exchange = exchange if isinstance(exchange, str) else getattr(exchange, "name", "")
        queue = self._routes.queue_of(exchange, routing_key, declare[0].name if declare else None)
        overrides = {key: properties.pop(key) for key in TASK_OPTIONS if key in properties}
        if len(properties) > 2:
            check_options(
                {k: v for k, v in properties.items() if k not in ("correlation_id", "reply_to")}, f"a call of {name!r}"
            )
        if overrides:
            check_options(overrides, f"a call of {name!r}")
            if overrides.get("max_concurrency") is not None:
                raise OptionError(f"a call of {name!r}: max_concurrency is set on a task or queue, not at a call")
        info = self.descriptions.of(name, queue, overrides)
        session = self.app.session
        client, large_values = session.client, session.large_values
        for key, definition in info.definitions:
            client.define(key, definition)
        content_type, content_encoding, embed = None, None, b""
        keys: tuple[str, ...] = ()
        if not travels_as_is(serializer, self._accepted):
            content_type, content_encoding, data = kombu_dumps(body, serializer)
            if compression:
                data, headers["compression"] = compress(data, compression)
            if isinstance(data, str):
                data = data.encode()
            embed = values.dumps_embed(body[2], self.app)
        else:
            try:
                data, keys = values.dumps_body(body, self._inline, large_values, self.app)
            except ArgumentError as exc:
                raise ArgumentError(
                    f"an argument of {name!r} {exc}; pass plain data, or a path or key from which the task can load it"
                ) from exc
        if client.log_to:
            properties.setdefault("log_to", client.log_to)
        limits = headers.get("timelimit")
        eta = headers.get("eta")
        try:
            payload = task_message(
                headers,
                properties,
                (exchange, routing_key, None if priority is None else int(priority)),
                data,
                embed=embed,
                content_type=content_type,
                content_encoding=content_encoding,
                module=info.module,
                code=info.code,
            )
            hard_limit = (limits[0] if limits else None) or info.hard_limit
            submission = Submission(
                str(headers["id"]),
                name,
                queue,
                info.lane,
                payload,
                self._priority(priority),
                self._epoch(eta) if eta else None,
                None if hard_limit is None else float(hard_limit),
                stamps_of(headers.get("stamps")),
                keys,
            )
            client.submit(submission, awaited=not headers.get("ignore_result"))
        except TypeError as exc:
            raise ArgumentError(f"the call of {name!r} cannot be sent: {exc}") from exc
        finally:
            if keys:
                large_values.done(keys)

    def _priority(self, priority: int | None) -> int:
        # Redis, as Celery uses it, serves 0 first; AMQP brokers serve the highest number first.
        if priority is None:
            return 0
        return int(priority) if self._low_first else -int(priority)

    def _epoch(self, eta: str) -> float:
        return float(maybe_make_aware(maybe_iso8601(eta), self.app.timezone).timestamp())

    def _publish_events(self, body: Any) -> bool:
        """Hand on what an event dispatcher sends, such as task-sent; return whether that is what it is.

        Raises:
            MessageError: it is neither an event nor a task.
        """
        events = body if isinstance(body, list) else [body]
        if all(isinstance(event, dict) and "type" in event for event in events):
            for event in events:
                self.app.client.store(operations.event(str(event["type"]), event, None))
            return True
        if isinstance(body, dict) and "task" in body:
            return False
        raise MessageError(
            "the producer of direct mode sends tasks and events only, and this message names no task: send it with "
            "app.connection_for_write().Producer(), or keep the broker with ray_mode='bridge'"
        )


_random = random.Random(int.from_bytes(os.urandom(32), "big"))
os.register_at_fork(after_in_child=lambda: _random.seed(int.from_bytes(os.urandom(32), "big")))


def new_id() -> str:
    """Return a random (version 4) UUID, without ``uuid4``'s system call and ``UUID``'s checks."""
    text = f"{_random.getrandbits(128):032x}"
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _repr(values: Any) -> str | None:
    """Return what Celery's ``saferepr`` would, where plain ``repr`` does the same, else None."""
    if type(values) is tuple and len(values) <= 8 and all(type(value) in (int, float, bool) for value in values):
        return repr(values)
    return None


class RayAMQP(AMQP):  # type: ignore[misc]
    """Celery's AMQP with the dispatcher in place of a broker; Celery's own in bridge mode."""

    @property
    def producer_pool(self) -> Any:
        """The pool that Celery takes producers from."""
        if not self.app.direct:
            return AMQP.producer_pool.fget(self)
        return RayPool(self.app.producer)

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()
        if self.app.conf.ray_mode != "mixed":
            return send
        return symbol_by_name("raycelery.switch.sides:sender")(self.app, send)

    @cached_property
    def _event_dispatcher(self) -> Any:
        # Celery's asks for a connection, and that for the client library of the broker that is not needed any more.
        connection = Connection("memory://") if self.app.direct else None
        return self.app.events.Dispatcher(connection=connection, enabled=False)

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any
    ) -> Any:
        """Make a message of protocol 2, as Celery does."""
        if options.get("argsrepr") is None and args:
            options["argsrepr"] = _repr(args)
        if options.get("kwargsrepr") is None and not kwargs:
            options["kwargsrepr"] = "{}"
        return super().as_task_v2(task_id, name, args, kwargs, *more, **options)
