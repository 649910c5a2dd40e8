"""Results from before a project ran on Ray: what the dispatcher does not know is looked up in ``result_backend``.

By Celery's own backend, see https://docs.celeryq.dev/en/stable/userguide/tasks.html#result-backends. Whoever polls an
id of neither side pays one look-up in a second, and none while that backend is out of reach. Nothing is written there
but the parts of chords that were begun there: some of them may have run on workers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import celery
from celery import states
from kombu.exceptions import ContentDisallowed, SerializationError
from kombu.utils.functional import LRUCache

from raycelery.errors import DispatcherUnreachable
from raycelery.masking import masked
from raycelery.protocol import questions

if TYPE_CHECKING:
    from raycelery.client.connection import Client

logger = logging.getLogger(__name__)

#: Seconds until an id that was not found is looked up again: a worker that still runs may end it.
AGAIN_SECONDS = 1.0
#: Seconds for which a backend that does not answer is left alone: the first time, and at most.
AWAY_SECONDS, MOST_AWAY_SECONDS = 5.0, 300.0
#: Seconds that Redis may take to answer, where the project allows more.
ANSWER_SECONDS = 2.0
#: The same for one whose message Ray has: it may be sent back to the broker.
ON_RAY_SECONDS = 60.0
#: Ids of which is remembered when they were looked up last.
REMEMBERED = 10_000
#: Backends that have nothing to be looked up: our own, none, and one whose results come as messages, once.
_NONE = ("ray", "disabled", "rpc", "cache+memory", "celery.backends.rpc")


def of(app: Any) -> OldResults | None:
    """Return what an application in direct mode has of results from before; None where no backend is named.

    Arguments:
        app: the application.
    """
    chosen = app.backend_cls or app.conf.result_backend
    if not app.conf.ray_old_results or not isinstance(chosen, str) or chosen.startswith(_NONE):
        return None
    try:
        # Celery's own choice, which the application's own would replace by its dispatcher.
        backend = celery.Celery._get_backend(app)
    except Exception as exc:  # its library may be missing, or its URL malformed: Celery names no class of errors
        logger.warning("results from before the switch are not looked up in %s: %s", masked(chosen), exc)
        return None
    return OldResults(backend, masked(chosen))


def answer_soon(backend: Any) -> Any:
    """Have one of Celery's result backends that is not connected give up soon where it does not answer; return it."""
    backend.always_retry = False
    parameters = getattr(backend, "connparams", None)
    if isinstance(parameters, dict):
        for key in ("socket_connect_timeout", "socket_timeout"):
            parameters[key] = min(parameters.get(key) or ANSWER_SECONDS, ANSWER_SECONDS)
    return backend


class OldResults:
    """Reads the results of tasks that ran on Celery's workers; safe to use from any thread.

    Arguments:
        backend: Celery's.
        name: what it is called in messages.
    """

    def __init__(self, backend: Any, name: Any) -> None:
        self._backend = backend
        self._name = name
        answer_soon(backend)
        #: When the backend may be asked again, by ``time.monotonic``; how long it is left alone the next time.
        self._away_until, self._pause = 0.0, AWAY_SECONDS
        #: When an id may be looked up again, by ``time.monotonic``.
        self._not_before: Any = LRUCache(limit=REMEMBERED)

    @property
    def away(self) -> bool:
        """Whether the backend did not answer lately, so that it is not asked."""
        return time.monotonic() < self._away_until

    def meta(self, client: Client, task_id: str) -> dict[str, Any] | None:
        """Return state and result of a task of which Ray has no result, or None.

        Arguments:
            client: the connection to the dispatcher.
            task_id: its id.

        Raises:
            kombu.exceptions.ContentDisallowed: it is in a form that the application does not accept.
        """
        if self.away or time.monotonic() < self._not_before.get(task_id, 0.0):
            return None
        meta = self._ask(self._backend.get_task_meta, task_id)
        if meta is not None and meta["status"] != states.PENDING:
            return dict(meta)
        unknown = client.call(questions.Unknown([task_id]))
        self._not_before[task_id] = time.monotonic() + (AGAIN_SECONDS if unknown else ON_RAY_SECONDS)
        return None

    def group(self, group_id: str) -> dict[str, Any] | None:
        """Return what is kept of a group that was saved, or None."""
        return None if self.away else self._ask(self._backend.get_group_meta, group_id)

    def chord_part(self, request: Any, state: str, result: Any) -> None:
        """Count a part of a chord that was begun on Celery's workers, and call its body, on Ray, if it is the last."""
        self._backend.on_chord_part_return(request, state, result)

    def elsewhere(self, client: Client, ids: Collection[str]) -> set[str]:
        """Return the tasks that are awaited and that Ray does not know, whose results may come from elsewhere.

        Arguments:
            client: the connection to the dispatcher. What this process has submitted by it is not asked for.
            ids: their ids.
        """
        others = client.inbox.not_submitted(ids)
        if not others or self.away or not client.connected:
            return set()
        try:
            unknown: list[str] = client.call(questions.Forgotten(others), timeout=ANSWER_SECONDS)
        except DispatcherUnreachable as exc:
            logger.debug("it is not known which results Ray has: %s", exc)
            return set()
        return set(unknown)

    def ended(self, client: Client, ids: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield id, state and result of those of some tasks that have ended."""
        for task_id in list(ids):
            meta = self.meta(client, task_id)
            if meta is not None and meta["status"] in states.READY_STATES:
                yield task_id, meta

    def _ask(self, read: Any, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] | None = read(name, cache=False)
        except (ContentDisallowed, SerializationError):
            raise
        except Exception as exc:  # the errors of whatever library the backend uses
            if self._pause == AWAY_SECONDS:
                logger.warning(
                    "%s does not answer: results from before the switch are not found meanwhile (%s); remove "
                    "result_backend, or set ray_old_results = False, where there are none any more",
                    self._name,
                    exc,
                )
            self._away_until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, MOST_AWAY_SECONDS)
            return None
        self._pause = AWAY_SECONDS
        return found
