"""Who waits for which results, and their way to them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from raycelery.protocol.frames import Result, Watch

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.store import Store
    from raycelery.protocol.operations import StoreResult

#: Results that are prefetched are sent when they are there if they are no larger, in bytes.
PREFETCHED_BYTES = 16_384


class Waiters:
    """Hands results on to the processes that wait for them, or have them prefetched.

    Arguments:
        store: has the results.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: By task id, and whether the result is only prefetched.
        self._waiting: dict[str, dict[Connection, bool]] = defaultdict(dict)

    def watch(self, conn: Connection, watch: Watch) -> None:
        """Send a process the results that are there, and the others when they come."""
        for prefetched, ids in ((False, watch.ids), (True, watch.prefetched)):
            for task_id in ids:
                ready = self._store.ready(task_id)
                if ready is None:
                    self._waiting[task_id][conn] = prefetched
                    conn.watching.add(task_id)
                else:
                    conn.results.append(_sent(ready, prefetched))
        conn.dirty()

    def came(self, result: StoreResult) -> None:
        """Send a result to those that wait for it."""
        waiting = self._waiting.pop(result.task_id, None)
        if waiting:
            for conn, prefetched in waiting.items():
                conn.watching.discard(result.task_id)
                conn.results.append(_sent(result, prefetched))
                conn.dirty(later=prefetched)

    def gone(self, conn: Connection) -> None:
        """Forget a process that is gone."""
        for task_id in conn.watching:
            waiting = self._waiting.get(task_id)
            if waiting is not None:
                waiting.pop(conn, None)
                if not waiting:
                    del self._waiting[task_id]


def _sent(result: StoreResult, prefetched: bool) -> Result:
    """Return a result as it is sent: a large one that nobody waits for yet is only announced."""
    large = prefetched and len(result.payload) > PREFETCHED_BYTES
    return Result(result.task_id, result.state, None if large else result.payload)
