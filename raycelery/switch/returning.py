"""Sends what waits on Ray back to the broker: each message leaves the journal for good once the broker has it.

The dispatcher takes a few messages off its queues at a time and keeps them, in its journal, until it is told that the
broker has confirmed them. On Redis they are published in one transaction that also notes so, and a run that follows one
that was killed does not publish them again; on RabbitMQ they go one by one, and one that was confirmed when the run was
killed is published twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import SerializationError
from kombu.serialization import dumps as kombu_dumps

from raycelery.app.backend import RayBackend
from raycelery.protocol import messages, questions
from raycelery.protocol.codec import Decoder
from raycelery.protocol.messages import Submission
from raycelery.serialization import values
from raycelery.switch import broker
from raycelery.switch.broker import Outgoing
from raycelery.switch.persisting import PAUSE_SECONDS, persist

#: Properties and headers that only Ray's side uses.
_OURS = ("log_to",)

_submissions: Decoder[list[Submission]] = Decoder(list[Submission])


class Stays(Exception):
    """A message cannot be sent to the broker, for a reason in words; it stays on Ray."""


@dataclass
class Counts:
    """What was done.

    Arguments:
        moved: messages that are in the broker now, by task.
        kept: messages that stay on Ray, by the reason.
        remaining: messages that wait on Ray at the end.
    """

    moved: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    remaining: int = 0


class Return:
    """Sends the messages that wait on Ray to the broker.

    Arguments:
        app: the application, in direct mode.
        queues: only of these; empty: of all.
        say: is told what happens, in words.
        progress: is called after each few messages, with the counts.
    """

    def __init__(
        self, app: Any, queues: Iterable[str], say: Callable[[str], None], progress: Callable[[Counts], None]
    ) -> None:
        self._app = app
        self._queues = list(queues)
        self._say = say
        self._progress = progress
        self.counts = Counts()
        #: Ids of what stays.
        self._kept: list[str] = []

    def run(self, *, until_empty: bool) -> Counts:
        """Send messages until none waits, or until interrupted; waits for a broker or cluster that is gone.

        Arguments:
            until_empty: end once nothing more can be sent.
        """
        return persist(self._app, lambda found: self._run(found, until_empty), self._say, write=True)

    def _run(self, found: broker.Broker, until_empty: bool) -> Counts:
        while True:
            if self._some(found):
                self._progress(self.counts)
            elif until_empty:
                return self.counts
            else:
                time.sleep(PAUSE_SECONDS)

    def _some(self, found: broker.Broker) -> bool:
        """Send a few messages; return False where none waits that can be sent."""
        client = self._app.client
        withdrawn = client.call(questions.GetValue(questions.WITHDRAWN))
        if withdrawn is None:
            ids = client.call(questions.Waits(self._queues, self._kept, found.most_at_once))
            fit = [one["id"] for one in client.call(questions.Messages("", ids)) if self._fits(one)] if ids else []
            if not ids:
                self.counts.remaining = len(self._kept)
                return False
            if not fit:
                return True
            client.call(questions.Withdraw(fit))
            withdrawn = client.call(questions.GetValue(questions.WITHDRAWN))
            if withdrawn is None:
                return True  # all have begun meanwhile
        submissions = _submissions.decode(withdrawn)
        found.publish([self._outgoing(one.task_id, one.task, one.queue, one.payload) for one in submissions], withdrawn)
        client.call(questions.DeleteValue(questions.WITHDRAWN))
        self.counts.moved += Counter(one.task for one in submissions)
        return True

    def _fits(self, one: dict[str, Any]) -> bool:
        try:
            self._outgoing(one["id"], one["task"], one["queue"], one["payload"])
        except Stays as exc:
            self.counts.kept[f"{one['task']}: {exc}"] += 1
            self._kept.append(one["id"])
            return False
        return True

    def _outgoing(self, task_id: str, task: str, queue: str, payload: bytes) -> Outgoing:
        sent = messages.opened(payload)
        headers, own = messages.headers_and_properties(sent, task_id, task)
        if sent.code is not None and not sent.code.prefer_import:
            raise Stays("its code was sent along with it, and no worker has it")
        if sent.content_type is None:
            embed, arguments = values.open_body(sent.body)
            serializer = str(self._app.conf.task_serializer)
            try:
                args, kwargs = arguments()
                encoded = kombu_dumps((args, kwargs, embed), serializer)
            except (SerializationError, TypeError, ValueError) as exc:
                raise Stays(f"its arguments are nothing that {serializer} can encode: {exc}") from exc
        else:
            embed = values.loads(sent.embed) if sent.embed else {}
            encoded = (sent.content_type, sent.content_encoding, sent.body)
        chord = embed.get("chord")
        on_ray = isinstance(self._app.backend, RayBackend)
        if on_ray and chord and headers.get("group") and not chord.get("chord_begun_before"):
            raise Stays("it is a part of a chord that was begun on Ray, which ends there")
        content_type, content_encoding, body = encoded
        properties = {key: value for key, value in own.items() if value is not None and key not in _OURS}
        priority = sent.delivery.priority
        properties.update(
            content_type=content_type,
            content_encoding=content_encoding,
            priority=self._app.conf.task_default_priority or 0 if priority is None else priority,
            delivery_mode=2,
        )
        return Outgoing(queue, body, headers, properties, self._due(headers.get("eta")))

    def _due(self, eta: str | None) -> float:
        if not eta:
            return 0.0
        return max(0.0, float(maybe_make_aware(maybe_iso8601(eta), self._app.timezone).timestamp()) - time.time())
