"""``app.control`` in direct mode: revoke, terminate, rate limits and purge go to the dispatcher.

Follows https://docs.celeryq.dev/en/stable/reference/celery.app.control.html. What is not here yet (``inspect`` and
broadcast commands that ask each worker) raises or returns nothing, as its docstring says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from celery.app.control import Control as CeleryControl
from celery.utils.functional import maybe_list
from celery.utils.time import rate


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's ``Control``; in bridge mode entirely so."""

    def revoke(self, task_id: str | Iterable[str], destination: Any = None, terminate: bool = False,
               signal: Any = "SIGTERM", **kwargs: Any) -> Any:  # fmt: skip
        """Revoke tasks: those waiting are marked REVOKED and never run.

        Arguments:
            task_id: an id or several.
            terminate: also end the executor process of those that run. The signal is always SIGKILL.
        """
        if not self.app.direct:
            return super().revoke(task_id, destination, terminate, signal, **kwargs)
        ids = [task_id] if isinstance(task_id, str) else [str(one) for one in task_id]
        self.app.client.call("revoke", ids, bool(terminate))
        return None

    def terminate(
        self, task_id: str | Iterable[str], destination: Any = None, signal: Any = "SIGTERM", **kwargs: Any
    ) -> Any:
        """Revoke tasks and end those that run."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)

    def revoke_by_stamped_headers(self, headers: Mapping[str, Any], destination: Any = None, terminate: bool = False,
                                  signal: Any = "SIGTERM", **kwargs: Any) -> Any:  # fmt: skip
        """Revoke every task, waiting or yet to be sent, that is stamped with one of the values."""
        if not self.app.direct:
            return super().revoke_by_stamped_headers(headers, destination, terminate, signal, **kwargs)
        stamps = {name: maybe_list(value) for name, value in headers.items()}
        self.app.client.call("revoke_stamps", stamps, bool(terminate))
        return None

    def rate_limit(
        self, task_name: str, rate_limit: str | int | float | None, destination: Any = None, **kwargs: Any
    ) -> Any:
        """Set the cluster-wide rate limit of a task, in Celery's form ("10/m"); 0 or None lifts it."""
        if not self.app.direct:
            return super().rate_limit(task_name, rate_limit, destination, **kwargs)
        self.app.client.call("rate", task_name, rate(rate_limit) or None)
        return None

    def purge(self, connection: Any = None) -> int:
        """Drop every waiting message and return how many there were."""
        if not self.app.direct:
            return int(super().purge(connection))
        return int(self.app.client.call("purge"))

    discard_all = purge
