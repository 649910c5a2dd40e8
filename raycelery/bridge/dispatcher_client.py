"""A bridge's connection to the dispatcher."""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from raycelery.bridge import logs
from raycelery.client import session
from raycelery.client.connection import Client
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing

logger = logging.getLogger(__name__)

#: What executors say of jobs: the bridge's numbers of bundle and job, and what happened. None: the connection broke.
Said = tuple[int, int, tuple[Any, ...]] | None


class Link:
    """Hands bundles to the dispatcher, and keeps what it says of them until it is asked for.

    Arguments:
        app: the worker's application.
        wake: called from another thread when there is something to be asked for.
    """

    def __init__(self, app: Any, wake: Callable[[], None]) -> None:
        self._app = app
        self._wake = wake
        self._said: deque[Said] = deque()
        self._closing = False
        from raycelery.serialization import ray_serializers

        ray_serializers.postpone()
        with _SignalsKept():
            self.session = session.of(app)
        self._client = Client(
            lambda: session.endpoint(self.session.dispatcher), {"role": "bridge"}, on_frame=self._on_frame
        )
        self._client.ensure()
        # What else is done with Ray in this process is the application's.
        ray_serializers.restore()

    @property
    def epoch(self) -> bytes | None:
        """Differs from one start of the dispatcher to the next."""
        return self._client.epoch

    def _on_frame(self, frame: tuple[Any, ...]) -> None:
        if frame[0] == "jobs":
            self._said.extend(frame[1])
        elif frame[0] == "logs":
            logs.relog(frame, self._app)
            return
        elif frame[0] == "closed" and not self._closing:
            self._said.append(None)
        self._wake()

    def said(self) -> Iterable[Said]:
        """Yield what was said since the last call."""
        while self._said:
            yield self._said.popleft()

    def define(self, definitions: Iterable[tuple[Any, tuple[Any, ...]]]) -> None:
        """Tell the dispatcher of lanes and applications that bundles will name."""
        for key, definition in definitions:
            self._client.define(key, definition)

    def send(self, kind: str, *fields: Any) -> bool:
        """Send a frame; return whether there is a connection. That it was lost is said like everything else."""
        try:
            self._client.post(framing.pack(kind, *fields))
        except DispatcherUnreachable as exc:
            logger.warning("%s", exc)
            return False
        return True

    def reconnect(self) -> None:
        """Connect again.

        Raises:
            DispatcherUnreachable: there is no dispatcher.
        """
        self._client.renew()

    def close(self) -> None:
        """Send what is buffered and disconnect."""
        self._closing = True
        self._client.close()


class _SignalsKept:
    """Keeps handlers of signals as Celery's worker set them: Ray installs its own when it starts."""

    def __enter__(self) -> None:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *exc_info: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
