"""Waiting for results: what was asked for comes over the process's connection in portions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing

if TYPE_CHECKING:
    from raycelery.client.connection import Client


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
        self._here: dict[str, tuple[str, Any]] = {}
        self._ids = dict.fromkeys(ids)
        with client._arrived:
            for task_id in self._ids:
                found = client._mailbox.pop(task_id, None)
                if found is not None:
                    self._here[task_id] = found
                else:
                    client._waiting.setdefault(task_id, []).append(self)
            for task_id in self._here:
                del self._ids[task_id]
            # What was hinted at comes by itself.
            self._unasked = [task_id for task_id in self._ids if task_id not in client._hinted]

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        client = self.client
        with client._arrived:
            for task_id in self._ids:
                others = client._waiting[task_id]
                others.remove(self)
                if not others:
                    del client._waiting[task_id]
            client._mailbox.update(self._here)

    def add(self, task_id: str) -> None:
        """Wait for one more."""
        client = self.client
        with client._arrived:
            found = client._mailbox.pop(task_id, None)
            if found is not None:
                self._here[task_id] = found
            elif task_id not in self._ids:
                self._ids[task_id] = None
                client._waiting.setdefault(task_id, []).append(self)
                if task_id not in client._hinted:
                    self._unasked.append(task_id)
            client._arrived.notify_all()

    @property
    def hopeless(self) -> bool:
        """Whether the dispatcher is gone and this process does not wait for another."""
        return self.client._lost is not None and not self.client._may_return

    def take(self, task_id: str, state: str, payload: Any) -> None:
        """Note that a result has come."""
        del self._ids[task_id]
        self._here[task_id] = (state, payload)

    def ask_for(self, task_id: str) -> None:
        """Note that a result that was only hinted at is there, but too large to come unasked."""
        self._unasked.append(task_id)

    def next(self, timeout: float | None = None) -> dict[str, tuple[str, Any]]:
        """Return what has come since the last call, waiting until something has.

        Arguments:
            timeout: seconds to wait; None: as long as it takes.

        Returns:
            task id to ``(state, payload)``; empty when the time is over.

        Raises:
            DispatcherUnreachable: the dispatcher went away, and is not one that may be started again.
        """
        client = self.client
        deadline = None if timeout is None else time.monotonic() + timeout
        blocked = False
        try:
            while True:
                if not self._here:
                    self._ask()
                with client._arrived:
                    if self._here:
                        found, self._here = self._here, {}
                        return found
                    if client._lost is not None or self._unasked:
                        continue
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return {}
                    if client.on_block is None or blocked:
                        client._arrived.wait(left)
                    elif not client._arrived.wait(0.005 if left is None else min(left, 0.005)):
                        blocked = True
                        client.on_block(True)
        finally:
            if blocked and client.on_block is not None:
                client.on_block(False)

    def _ask(self) -> None:
        client = self.client
        if self._unasked:
            with client._lock:
                with client._arrived:
                    ask, self._unasked = self._unasked, []
                client.flush()
                client._send(framing.pack("watch", ask, client._hints(ask)))
        elif client._messages:
            client.flush()
        if client._lost is not None:
            if not client._may_return:
                raise DispatcherUnreachable(f"the dispatcher went away while results were awaited: {client._lost}")
            client.ensure()
