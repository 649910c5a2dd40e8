"""``app.control`` in direct mode: what would be broadcast to workers goes to the dispatcher.

Follows https://docs.celeryq.dev/en/stable/reference/celery.app.control.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery import states
from celery.app.control import Control as CeleryControl
from celery.utils.functional import maybe_list
from celery.utils.time import rate

from raycelery.control.inspection import Inspection, node_name
from raycelery.errors import RayCeleryError

Reply = list[dict[str, Any]]


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's ``Control``; in bridge mode entirely so.

    ``destination`` is not looked at: there is one dispatcher. ``terminate`` ends executors with SIGKILL, whatever
    ``signal`` says.
    """

    def broadcast(self, command: str, arguments: Mapping[str, Any] | None = None, destination: Any = None,
                  connection: Any = None, reply: bool = False, timeout: float = 1.0, limit: Any = None,
                  callback: Any = None, channel: Any = None, pattern: Any = None, matcher: Any = None,
                  **more: Any) -> Reply | None:  # fmt: skip
        """Carry out a worker command, and return its reply in Celery's form if one is wanted.

        Raises:
            RayCeleryError: direct mode has no such command.
        """
        if not self.app.direct:
            replies: Reply | None = super().broadcast(
                command, arguments, destination, connection, reply, timeout, limit, callback, channel, pattern,
                matcher, **more,
            )  # fmt: skip
            return replies
        given = {**(arguments or {}), **more}
        inspection = Inspection(self.app)
        handler = getattr(self, f"_do_{command}", None)
        if handler is None and not command.startswith("_"):
            handler = getattr(inspection, command, None)
        if command == "heartbeat":
            return None  # a wish for events, of which there are none yet
        if handler is None:
            raise RayCeleryError(f"there is no worker to take the control command {command!r} in direct mode")
        answer = {node_name(self.app): handler(**given)}
        if callback is not None:
            callback(answer)
        return [answer] if reply else None

    def purge(self, connection: Any = None) -> int:
        """Drop every waiting message and return how many there were."""
        if not self.app.direct:
            return int(super().purge(connection))
        return int(self.app.client.call("purge"))

    discard_all = purge

    def _do_revoke(self, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> dict[str, str]:
        ids = {str(one) for one in maybe_list(task_id) or []}
        backend = self.app.backend
        for unknown in self.app.client.call("revoke", list(ids), bool(terminate)):
            # Celery marks what it has not seen yet; what has ended, or goes on elsewhere, keeps its state.
            if backend.get_state(unknown) == states.PENDING:
                backend.mark_as_revoked(unknown, "revoked")
        return {"ok": f"tasks {ids} flagged as revoked"}

    def _do_revoke_by_stamped_headers(
        self, headers: Any, terminate: bool = False, signal: Any = None, **_: Any
    ) -> dict[str, str]:
        if isinstance(headers, list):
            headers = dict(header.split("=", 1) for header in headers)
        stamps = {name: maybe_list(value) for name, value in headers.items()}
        self.app.client.call("revoke_stamps", stamps, bool(terminate))
        return {"ok": f"headers {headers} {'revoked' if terminate else 'flagged as revoked, but not terminated'}"}

    def _do_rate_limit(self, task_name: str, rate_limit: Any, **_: Any) -> dict[str, str]:
        self.app.client.call("rate", task_name, rate(rate_limit) or None)
        return {"ok": "new rate limit set successfully" if rate_limit else "rate limit disabled successfully"}

    def terminate(
        self, task_id: str | Iterable[str], destination: Any = None, signal: Any = "SIGTERM", **kwargs: Any
    ) -> Any:
        """Revoke tasks and end those that run."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)
