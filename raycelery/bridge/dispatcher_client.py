"""A bridge's connection to the dispatcher."""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from raycelery.bridge import logs
from raycelery.client import session
from raycelery.client.connection import Client, Closed
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol.definitions import Definition
from raycelery.protocol.frames import BatchReports, BridgeFrame, BridgeReport, FromDispatcher, Hello, Lines

logger = logging.getLogger(__name__)

#: What became of a message. None: the connection was lost.
Report = BridgeReport | None


class DispatcherClient:
    """Sends batches to the dispatcher, and queues what it reports of them.

    Arguments:
        app: the worker's application.
        wake: called from the connection's reading thread when there are reports to take.

    Raises:
        DispatcherUnreachable: no dispatcher answers.
    """

    def __init__(self, app: Any, wake: Callable[[], None]) -> None:
        self._app = app
        self._wake = wake
        #: Filled by the reading thread, emptied by whoever takes reports; a deque's own operations are atomic.
        self._reports: deque[Report] = deque()
        self._closing = False
        from raycelery.serialization import ray_serializers  # it imports Ray

        ray_serializers.postpone()
        with _KeepSignalHandlers():
            self.session = session.of(app)
        self._client = Client(
            lambda: session.endpoint(self.session.dispatcher), Hello("bridge"), on_frame=self._on_frame
        )
        self._client.ensure()
        # What else is done with Ray in this process is the application's.
        ray_serializers.restore()

    @property
    def epoch(self) -> bytes | None:
        """Identifies this run of the dispatcher; it has another one after a restart."""
        return self._client.epoch

    def _on_frame(self, frame: FromDispatcher | Closed) -> None:
        if type(frame) is Lines:
            logs.relog(frame, self._app)
            return
        if type(frame) is BatchReports:
            self._reports.extend(frame.reports)
        elif type(frame) is Closed and not self._closing:
            self._reports.append(None)
        self._wake()

    def reports(self) -> Iterable[Report]:
        """Yield the reports that have come since the last call, in order."""
        while self._reports:
            yield self._reports.popleft()

    def define(self, definitions: Iterable[tuple[Hashable, Definition]]) -> None:
        """Tell the dispatcher of the lanes and applications that the next batch names."""
        for key, definition in definitions:
            self._client.define(key, definition)

    def send(self, frame: BridgeFrame) -> bool:
        """Send a frame; return whether there is a connection.

        If it is lost, :meth:`reports` says so, too.
        """
        try:
            self._client.post(frame)
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


class _KeepSignalHandlers:
    """Keeps the signal handlers that Celery's worker set: Ray installs its own when it starts."""

    def __enter__(self) -> None:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():
            self._handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *exc_info: Any) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
