"""What Celery's request takes for its event dispatcher: events of tasks, handed to the dispatcher with the reports."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from raycelery.client.connection import Client
from raycelery.protocol import operations

logger = logging.getLogger(__name__)


class Eventer:
    """Sends events while somebody listens.

    Arguments:
        client: the executor's connection.
        node: Ray's id of the node.
    """

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._pid = os.getpid()
        #: Whether somebody listens; the dispatcher says so.
        self.enabled = False

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event: a start at once, an end with the report that follows it."""
        if self.enabled:
            fields.update(timestamp=time.time(), pid=self._pid)
            try:
                told = operations.event(kind, fields, self._node)
            except TypeError as exc:  # of an event of the task's own, or of an error's words
                logger.error("an event of kind %r was not sent: %s", kind, exc)
                return
            self._client.store(told, now=kind == "task-started")
