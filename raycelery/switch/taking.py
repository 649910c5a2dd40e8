"""A message of a broker becomes a message on Ray: with its id, headers, priority, retries, canvas and due time.

Follows ``celery.worker.strategy``: messages of protocol 1 become such of protocol 2 first. What the application does
not accept is not decoded, see https://docs.celeryq.dev/en/stable/userguide/security.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.time import maybe_iso8601
from celery.worker.strategy import hybrid_to_proto2
from kombu.entity import Queue
from kombu.exceptions import ContentDisallowed, SerializationError
from kombu.serialization import prepare_accept_content, registry

from raycelery.switch.broker import destination

#: What brokers add to the headers of a message on its way, and what is no longer true of its body.
_OF_BROKERS = {"redelivered", "compression", "x-death", "x-delivery-count", "x-acquired-count"}
_PREFIXES = ("x-first-death-", "x-last-death-")


class Unfit(Exception):
    """A message cannot be taken to Ray, for a reason in words; it stays in the broker."""


@dataclass
class Taken:
    """A message as it is published on Ray.

    Arguments:
        task: name of the task.
        id: of the call.
        identity: the same when the message is delivered again, another for a retry of its task.
        body: arguments, and what follows the task.
        headers: Celery's and the project's own.
        options: the other arguments of :meth:`raycelery.app.producer.RayProducer.publish`.
        redelivered: whether it was delivered before, as far as the broker knows.
    """

    task: str
    id: str
    identity: bytes
    body: Any
    headers: dict[str, Any]
    options: dict[str, Any]
    redelivered: bool

    def publish(self, app: Any) -> None:
        """Hand it to the dispatcher, as the application's own calls are."""
        app.producer.publish(self.body, headers=dict(self.headers), **self.options)


def read(app: Any, message: Any, queue: str) -> Taken:
    """Read a message.

    Arguments:
        app: the application.
        message: kombu's.
        queue: the queue that it was taken from, or that it is bound for.

    Raises:
        Unfit: it cannot be taken.
    """
    message.accept = prepare_accept_content(app.conf.accept_content)
    headers = dict(message.headers or {})
    if "task" in headers and headers["task"] not in app.tasks:
        raise Unfit(f"the application has no task {headers['task']!r}")  # its arguments need not be looked at
    try:
        body = message.payload
    except ContentDisallowed as exc:
        raise Unfit(f"accept_content does not allow {message.content_type}") from exc
    except (SerializationError, LookupError, ValueError) as exc:
        raise Unfit(f"its body cannot be read ({type(exc).__name__}: {exc})") from exc
    utc = True
    if isinstance(body, dict):
        try:
            body, headers, _, utc = hybrid_to_proto2(message, body)
        except InvalidTaskError as exc:
            raise Unfit(str(exc)) from exc
    task, task_id = headers.get("task"), headers.get("id")
    if not isinstance(task, str) or not task_id or not isinstance(body, (list, tuple)) or len(body) != 3:
        raise Unfit("it is no call of a task")
    if task not in app.tasks:
        raise Unfit(f"the application has no task {task!r}")
    redelivered = bool(headers.get("redelivered") or message.delivery_info.get("redelivered"))
    compression = (message.headers or {}).get("compression")
    headers = {
        key: value for key, value in headers.items() if key not in _OF_BROKERS and not str(key).startswith(_PREFIXES)
    }
    if utc and isinstance(headers.get("eta"), str) and maybe_iso8601(headers["eta"]).tzinfo is None:
        headers["eta"] += "+00:00"
    embed = body[2]
    if isinstance(embed, dict) and embed.get("chord") and getattr(app.backend, "old_results", None):
        # Its size is known to the project's result backend, and some of its parts may be there.
        body = (body[0], body[1], {**embed, "chord": {**embed["chord"], "chord_begun_before": True}})
    info, properties = message.delivery_info, message.properties or {}
    exchange, routing_key = destination(message) or (info.get("exchange") or "", info.get("routing_key") or queue)
    priority = properties.get("priority", info.get("priority"))
    return Taken(
        task,
        str(task_id),
        f"raycelery-drained-{task_id}-{headers.get('retries') or 0}".encode(),
        tuple(body),
        headers,
        {
            "serializer": registry.type_to_name.get(message.content_type, message.content_type),
            "compression": compression,
            "exchange": exchange if not str(exchange).startswith("celery_delayed_") else "",
            "routing_key": routing_key if exchange else queue,
            "declare": [Queue(queue)],
            "priority": None if priority is None else int(priority),
            "correlation_id": properties.get("correlation_id") or str(task_id),
            "reply_to": properties.get("reply_to"),
        },
        redelivered,
    )
