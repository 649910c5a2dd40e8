"""What Celery's request takes for its event dispatcher: events of tasks, handed to the dispatcher with the reports."""

from __future__ import annotations

import os
import time
from typing import Any

from raycelery.client.connection import Client


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
            self._client.store(("event", kind, fields, self._node), now=kind == "task-started")
