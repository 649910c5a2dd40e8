"""Waiting for results: what was asked for comes over the process's connection in portions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raycelery.client.connection import Client
    from raycelery.protocol.frames import Result

#: Seconds that a wait may take before the executor that waits gives its CPUs to others meanwhile.
_BLOCK_SECONDS = 0.005


class Waiting:
    """Somebody's wait for the results of some tasks; a context manager.

    The dispatcher is asked once, and each result is looked at once, however many are awaited and in whatever portions
    they come.

    Arguments:
        client: the connection.
        ids: task ids.
    """

    def __init__(self, client: Client, ids: Iterable[str]) -> None:
        self.client = client
        self._awaited = client.inbox.open(ids)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.client.inbox.close(self._awaited)

    def add(self, task_id: str) -> None:
        """Wait for one more."""
        self.client.inbox.add(self._awaited, task_id)

    @property
    def hopeless(self) -> bool:
        """Whether the dispatcher is gone and this process does not wait for another."""
        return self.client.lost and not self.client.may_return

    def next(self, timeout: float | None = None) -> dict[str, Result]:
        """Return what has come since the last call, waiting until something has.

        Arguments:
            timeout: seconds to wait; None: as long as it takes.

        Returns:
            results by task id; empty when the time is over.

        Raises:
            DispatcherUnreachable: the dispatcher went away, and is not one that may be started again.
        """
        client, inbox, awaited = self.client, self.client.inbox, self._awaited
        deadline = None if timeout is None else time.monotonic() + timeout
        blocked = False
        try:
            while True:
                found = inbox.arrived(awaited)
                if found:
                    return found
                left = None if deadline is None else deadline - time.monotonic()
                if not client.watch(awaited, left):
                    return {}
                on_block = None if blocked or (left is not None and left <= _BLOCK_SECONDS) else client.on_block
                if inbox.wait(awaited, left if on_block is None else _BLOCK_SECONDS, lambda: client.lost):
                    continue
                if on_block is None:
                    return {}
                blocked = True
                on_block(True)
        finally:
            if blocked and client.on_block is not None:
                client.on_block(False)
