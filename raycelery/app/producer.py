"""The producer's side of direct mode: what Celery publishes becomes a submission to the dispatcher.

Celery's own ``AMQP.send_task_message`` stays in charge of options, routing and signals; in place of a kombu producer it
gets :class:`RayProducer`, whose ``publish`` puts the message into the client's buffer.
Follows https://docs.celeryq.dev/en/stable/internals/protocol.html (version 2).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
from collections.abc import Hashable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery.app.amqp import AMQP
from celery.utils.time import maybe_iso8601, maybe_make_aware, rate
from celery.worker.strategy import proto1_to_proto2
from kombu.compression import compress
from kombu.connection import Connection
from kombu.entity import Exchange
from kombu.serialization import dumps as kombu_dumps
from kombu.utils.objects import cached_property

from raycelery import names
from raycelery.app import environment, left_out, spec
from raycelery.app.consuming import request_class
from raycelery.app.options import TASK_OPTIONS, check_options, options_of
from raycelery.app.routing import Routes
from raycelery.app.settings import travels_as_is
from raycelery.app.standins import RayChannel, RayConnection, RayPool
from raycelery.app.urls import low_first
from raycelery.errors import ArgumentError, MessageError, OptionError
from raycelery.protocol import operations
from raycelery.protocol.definitions import (
    DefineApplication,
    DefineCode,
    DefineLane,
    DefineLimit,
    DefineRate,
    Definition,
)
from raycelery.protocol.messages import CodeKey, Submission, stamps_of, task_message
from raycelery.scheduler.model import Lane, lane_of
from raycelery.serialization import values

if TYPE_CHECKING:
    from celery import Celery


logger = logging.getLogger(__name__)


#: Tasks, with what their calls ask for, whose lanes are remembered.
_MOST_KNOWN = 10_000


#: What identifies a definition to :meth:`Client.define`, and the definition.
Defined = tuple[Hashable, Definition]


class _Task:
    """What publishing needs to know of one task in one queue, worked out once."""

    __slots__ = ("awaited", "code", "definitions", "hard_limit", "lane", "module")

    def __init__(self, lane: str, definitions: list[Defined]) -> None:
        self.lane = lane
        self.definitions = definitions
        self.module: str | None = None
        self.code: CodeKey | None = None
        self.hard_limit: float | None = None
        self.awaited = True


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
        #: By task, queue, and what a call asks for.
        self._tasks: dict[tuple[str, str, Any], _Task] = {}
        self._codes: dict[int, tuple[Any, str, bytes]] = {}
        self._routes = Routes(app)
        self._spec: spec.AppSpec | None = None
        self._adopted = False
        self._receivers: list[spec.Receiver] | None = None
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
        known = self._tasks.get((name, queue, _fixed(overrides)))
        info = known if known is not None else self._describe(name, queue, overrides)

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

    def described(self) -> spec.AppSpec:
        """Return the description by which executors load the application."""
        if self._spec is None:
            self.app.finalize(auto=True)
            self.app.session  # noqa: B018  # what is described depends on the Ray job
            if self._receivers is None:
                left_out.warn(self.app)
            self._receivers = spec.receivers(self.app)
            self._spec = spec.spec_of(self.app, self.app.home, names.dispatcher_name(self.app))
        return self._spec

    def adopt(self, app_spec: spec.AppSpec) -> None:
        """Publish under the description that this executor was given, so that subtasks share its lanes.

        Arguments:
            app_spec: the description.
        """
        self._spec, self._adopted = app_spec, True
        self.app.dispatcher = app_spec.dispatcher

    def adopt_code(self, task: Any, key: str, code: bytes) -> None:
        """Publish ``task`` with the code that this executor was given for it."""
        self._codes[id(task)] = (task, key, code)

    def app_definition(self) -> Defined:
        """Return the definition of the application, for :meth:`Client.define`."""
        app_spec = self.described()
        return ("app", app_spec.key), DefineApplication(app_spec.key, pickle.dumps(app_spec), app_spec.env or "")

    def _describe(self, name: str, queue: str, overrides: Mapping[str, Any]) -> _Task:
        app = self.app
        app_spec = self.described()
        task = app._tasks.get(name)
        if task is not None:
            self._check(task)
        options = self._options(task, queue, overrides)
        lane = _lane(options, app_spec.key)
        definitions: list[Defined] = [
            self.app_definition(),
            (("lane", lane.key), DefineLane(lane.key, dict(lane.request), lane.app, lane.env, lane.one_shot)),
        ]
        for limit, maximum in self._limits(task, name, queue):
            definitions.append((("limit", limit, maximum), DefineLimit(limit, maximum)))
        per_second = rate(task.rate_limit) if task is not None and task.rate_limit else None
        if per_second:
            definitions.append((("rate", name, per_second), DefineRate(name, per_second)))
        info = _Task(lane.key, definitions)
        if task is not None:
            info.hard_limit = task.time_limit or self.app.conf.task_time_limit  # in tasks themselves since Celery 5.7
            module = task.__module__
            info.module = None if module in ("__main__", None) else module
            if spec.needs_value(task, app_spec.value is not None):
                info.code = CodeKey(self._code(task)[0], spec.by_import_first(task))
                definitions += self._codes_by_value(app_spec)
        fixed = _fixed(overrides)
        if fixed is not None:
            if len(self._tasks) >= _MOST_KNOWN:
                self._tasks.clear()
            self._tasks[name, queue, fixed] = info
        return info

    def _check(self, task: Any) -> None:
        """Refuse a task that direct mode cannot run."""
        request_class(task)

    def _codes_by_value(self, app_spec: spec.AppSpec) -> list[Defined]:
        """Return the definitions of all tasks that travel by value: one may call another."""
        definitions: list[Defined] = []
        for name, task in list(self.app._tasks.items()):
            if not spec.needs_value(task, app_spec.value is not None):
                continue
            try:
                key, code = self._code(task)
            except ArgumentError as exc:
                logger.debug("not carried along: %s", exc)
                continue
            definition = DefineCode(app_spec.key, name, key, code, spec.by_import_first(task))
            definitions.append((("code", app_spec.key, name, key), definition))
        return definitions

    def _code(self, task: Any) -> tuple[str, bytes]:
        known = self._codes.get(id(task))
        if known is None or known[0] is not task:
            code = spec.code_of(task, self.app.recipes.get(task.name))
            known = (task, hashlib.sha256(code).hexdigest()[:16], code)
            self._codes[id(task)] = known
        return known[1], known[2]

    def _options(self, task: Any, queue: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        conf = self.app.conf
        base = environment.merged(json.loads(self.described().env or "{}"), conf.ray_runtime_env)
        options: dict[str, Any] = {"num_cpus": conf.ray_num_cpus, "runtime_env": base}
        own = options_of(task) if task is not None else {}
        for layer in (conf.ray_queues.get(queue) or {}, own, overrides):
            env = environment.merged(options["runtime_env"], layer.get("runtime_env"))
            options.update({key: value for key, value in layer.items() if value is not None}, runtime_env=env)
        if options["runtime_env"]:
            connected = self.app.session.can_use_ray
            options["runtime_env"] = environment.packaged(options["runtime_env"], connected=connected)
        return options

    def _limits(self, task: Any, name: str, queue: str) -> list[tuple[str, int]]:
        conf = self.app.conf
        limits = []
        if conf.worker_concurrency:
            limits.append(("app", int(conf.worker_concurrency)))
        of_queue = (conf.ray_queues.get(queue) or {}).get("max_concurrency")
        if of_queue:
            limits.append((f"queue:{queue}", int(of_queue)))
        of_task = getattr(task, "max_concurrency", None)
        if of_task:
            limits.append((f"task:{name}", int(of_task)))
        return limits

    def reconsider(self) -> None:
        """Work out anew what publishing needs to know: the application or its configuration was changed."""
        self._tasks.clear()
        if not self._adopted and self._spec is not None and self._spec.value is not None:
            self._spec = None

    def forget(self) -> None:
        """Work out anew what publishing needs to know: there is a new task, which those known may call."""
        self._tasks.clear()
        if not self._adopted and self._receivers is not None and spec.receivers(self.app) != self._receivers:
            self._spec = None


def _fixed(overrides: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what identifies a call's options, or None where it is not known before they are worked out."""
    if not overrides:
        return ()
    if "runtime_env" in overrides:
        return None  # what is in its folders may have changed
    return tuple((key, tuple(v.items()) if isinstance(v, Mapping) else v) for key, v in sorted(overrides.items()))


def _lane(options: Mapping[str, Any], app_key: str) -> Lane:
    request: dict[str, float] = {"CPU": float(options.get("num_cpus") or 0)}
    if options.get("num_gpus"):
        request["GPU"] = float(options["num_gpus"])
    if options.get("memory"):
        request["memory"] = float(options["memory"])
    request.update({key: float(value) for key, value in (options.get("resources") or {}).items() if value})
    env = options.get("runtime_env")
    env_text = json.dumps(dict(env), sort_keys=True) if env else ""
    one_shot = options.get("executor") == "function"
    return lane_of({key: value for key, value in request.items() if value}, app_key, env_text, one_shot)


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
