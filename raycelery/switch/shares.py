"""Shares that are set while a project runs (``raycelery switch set``): kept in its result backend, read by producers.

They are in ``result_backend``, as all processes of a project in mixed mode reach it, and stay there over restarts.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from celery.app import backends
from celery.backends.base import BaseKeyValueStoreBackend

from raycelery.errors import OptionError
from raycelery.masking import masked
from raycelery.names import dispatcher_name
from raycelery.switch.old_results import answer_soon

logger = logging.getLogger(__name__)

#: Seconds for which a process goes by what it has read.
FRESH_SECONDS = 2.0
#: The same while the backend does not answer.
AWAY_SECONDS = 10.0


class LiveShares:
    """The shares of one application's tasks that were set live, by pattern; safe to use from any thread.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._key = f"raycelery-shares-{dispatcher_name(app)}"
        self._backend: Any = None
        self._known: dict[str, float] = {}
        self._read_again = 0.0

    def current(self) -> dict[str, float]:
        """Return them as they were within the last seconds; the last that were read while the backend is gone."""
        now = time.monotonic()
        if now >= self._read_again:
            self._read_again = now + FRESH_SECONDS  # other threads go by what is known
            try:
                self._known = self.read()
            except OptionError as exc:
                logger.debug("no shares are set live: %s", exc)
                self._read_again = float("inf")
            except Exception as exc:  # the errors of whatever library the backend uses
                logger.debug("shares that are set live cannot be read: %s", exc)
                self._read_again = time.monotonic() + AWAY_SECONDS
        return self._known

    def read(self) -> dict[str, float]:
        """Read them.

        Raises:
            OptionError: the project has no result backend that could keep them.
        """
        found = self._store().get(self._key)
        return {str(pattern): float(share) for pattern, share in json.loads(found).items()} if found else {}

    def write(self, pattern: str, share: float | None) -> dict[str, float]:
        """Set one, or let it go, and return all.

        Arguments:
            pattern: of tasks' names, as of :mod:`fnmatch`.
            share: from 0 to 1; None: as the configuration says.

        Raises:
            OptionError: the project has no result backend that could keep it.
        """
        shares = {**self.read(), pattern: share}
        kept = {one: value for one, value in shares.items() if value is not None}
        self._store().set(self._key, json.dumps(kept))
        return kept

    def _store(self) -> Any:
        if self._backend is None:
            url = self._app.conf.result_backend
            cls, url = backends.by_url(url, self._app.loader)
            if not issubclass(cls, BaseKeyValueStoreBackend):
                raise OptionError(
                    f"the result backend {masked(self._app.conf.result_backend)!r} cannot keep shares that are set "
                    "live: use one that keeps values by key, such as Redis, or set ray_share in the configuration"
                )
            self._backend = answer_soon(cls(app=self._app, url=url, expires=0))
        return self._backend
