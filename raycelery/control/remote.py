"""``app.control`` in direct mode: Celery's own, over the ``ray://`` transport.

Follows https://docs.celeryq.dev/en/stable/reference/celery.app.control.html.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from celery import states
from celery.app.control import Control as CeleryControl
from celery.utils.functional import maybe_list
from kombu.utils.functional import lazy

from raycelery.client import session
from raycelery.control import commands
from raycelery.errors import DispatcherUnreachable, RayCeleryError
from raycelery.protocol import questions

logger = logging.getLogger(__name__)

Reply = list[dict[str, Any]]

#: Commands whose answer only the application knows: it goes along with the question.
_KNOWN_HERE = {
    "active_queues": "active_queues",
    "conf": "conf",
    "dump_conf": "conf",
    "dump_tasks": "registered",
    "registered": "registered",
    "report": "report",
}
#: Commands that name a task, which must be one of the application's.
_OF_A_TASK = ("rate_limit", "time_limit")


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's ``Control``; each Ray node answers as a worker would.

    In direct mode what is set holds for the whole application, whatever the ``destination``; ``terminate`` ends
    executors with SIGKILL, whatever ``signal`` says.
    """

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        # Celery's pool of producers publishes tasks; in direct mode only those.
        self.mailbox._producer_pool = lazy(lambda: None if app.direct else app.amqp.producer_pool)

    def broadcast(self, command: str, arguments: Mapping[str, Any] | None = None, destination: Any = None,
                  connection: Any = None, reply: bool = False, timeout: float = 1.0, limit: Any = None,
                  callback: Any = None, channel: Any = None, pattern: Any = None, matcher: Any = None,
                  **more: Any) -> Reply | None:  # fmt: skip
        """Send a command to all nodes or to some, and return their replies if they are wanted.

        Raises:
            RayCeleryError: direct mode has no such command.
            DispatcherUnreachable: replies are wanted, and there is no cluster from which they could come.
        """
        given = {**(arguments or {}), **more}
        if self.app.direct:
            self._see_that_it_is_known(command)
            given.update(self._known_here(command, given))
            if not reply:
                self.app.session  # noqa: B018  (what is set counts for what this program submits later)
            elif limit is None and not destination and not pattern:
                # All will answer: there is no need to wait until the time is over.
                limit = session.look(self.app).client.call(questions.Respondents())
        replies: Reply | None = super().broadcast(
            command, given, destination, connection, reply, timeout, limit, callback, channel, pattern, matcher
        )
        if self.app.direct and command in ("revoke", "terminate"):
            self._mark_unseen(given.get("task_id"))
        elif self.app.conf.ray_mode == "mixed" and command == "revoke":
            self._revoke_on_ray(given)
        return replies

    def _revoke_on_ray(self, given: Mapping[str, Any]) -> None:
        """Revoke tasks that may have gone to Ray rather than to the broker's workers."""
        ids = [str(one) for one in maybe_list(given.get("task_id")) or []]
        try:
            self.app.client.call(questions.Revoke(ids, bool(given.get("terminate"))))
        except DispatcherUnreachable as exc:
            logger.warning("%s is revoked on workers only, as the cluster is out of reach: %s", ", ".join(ids), exc)

    def _see_that_it_is_known(self, command: str) -> None:
        if command not in commands.NAMES:
            raise RayCeleryError(
                f"there is no worker to take the control command {command!r} in direct mode; "
                f"known: {', '.join(sorted(commands.NAMES))}"
            )

    def _known_here(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if command in _OF_A_TASK:
            return {"known": arguments.get("task_name") in self.app.tasks}
        if command not in _KNOWN_HERE:
            return {}
        from celery.worker.control import Panel

        queues = list(self.app.amqp.queues.consume_from.values())
        consumer = SimpleNamespace(task_consumer=SimpleNamespace(queues=queues))
        known = Panel.data[_KNOWN_HERE[command]](SimpleNamespace(app=self.app, consumer=consumer), **arguments)
        if _KNOWN_HERE[command] == "conf":
            # It is among the settings that a worker was started with.
            known = {"include": list(self.app.conf.include), **known}
        return {"known": known}

    def _mark_unseen(self, task_id: Any) -> None:
        ids = {str(one) for one in maybe_list(task_id) or []}
        backend = self.app.backend
        for unknown in self.app.client.call(questions.Unknown(list(ids))):
            # Celery marks what it has not seen yet; what has ended, or goes on elsewhere, keeps its state.
            if backend.get_state(unknown) == states.PENDING:
                backend.mark_as_revoked(unknown, "revoked")

    def purge(self, connection: Any = None) -> int:
        """Drop every waiting message and return how many there were."""
        if not self.app.direct:
            return int(super().purge(connection))
        return int(self.app.client.call(questions.Purge()))

    discard_all = purge

    def terminate(
        self, task_id: str | Iterable[str], destination: Any = None, signal: Any = "SIGTERM", **kwargs: Any
    ) -> Any:
        """Revoke tasks and end those that run."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)
