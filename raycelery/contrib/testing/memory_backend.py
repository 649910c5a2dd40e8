"""Results of tasks that run in the test's own process, kept in its memory: any value, as in direct mode."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

from celery import states
from celery.backends.asynchronous import AsyncBackendMixin, BaseResultConsumer
from celery.backends.base import BaseKeyValueStoreBackend

from raycelery.serialization import values


class _ResultConsumer(BaseResultConsumer):  # type: ignore[misc]
    """Tells waiting threads of results when they are stored; nothing is polled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Result objects that wait for a task, by the task's id and their own.
        self.waiting: dict[str, dict[int, Any]] = {}
        #: Guards ``_stored``, and wakes who waits for it to change.
        self._changed = threading.Condition()
        #: How many states have been stored.
        self._stored = 0
        #: Per thread: how many of these it has seen.
        self._seen = threading.local()

    def stored(self, meta: dict[str, Any]) -> None:
        """Hand a state to whoever waits for it."""
        self.on_state_change(meta, None)
        with self._changed:
            self._stored += 1
            self._changed.notify_all()

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        for meta in result._iter_meta(**kwargs):
            if meta is not None:
                self.on_state_change(meta, None)

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        """Give a task's final state to all that wait for it; Celery before 5.7 gives it to the first only."""
        if self.on_message:
            self.on_message(meta)
        if meta["status"] not in states.READY_STATES:
            return
        waiting = list(self.waiting.get(meta["task_id"], {}).values())
        if not waiting:
            self._pending_messages.put(meta["task_id"], meta)
        for result in waiting:
            result._maybe_set_cache(meta)
            bucket = self.buckets.pop(result, None)
            if bucket is not None:
                bucket.append(result)

    def drain_events(self, timeout: float | None = None) -> None:
        """Return when something was stored since this thread's last call.

        Raises:
            TimeoutError: nothing was within ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._stored != getattr(self._seen, "count", 0), timeout):
                raise TimeoutError
            self._seen.count = self._stored

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Do nothing: there is nothing to connect."""

    def consume_from(self, task_id: str) -> None:
        """Do nothing: every result is heard of."""

    def cancel_for(self, task_id: str) -> None:
        """Do nothing, see above."""


class MemoryBackend(BaseKeyValueStoreBackend, AsyncBackendMixin):  # type: ignore[misc]
    """A result backend in this process's memory; follows Celery's Redis backend in what it offers."""

    supports_native_join = True
    supports_autoexpire = True
    implements_incr = True
    persistent = False

    def __init__(self, app: Any, **kwargs: Any) -> None:
        kwargs.update(serializer="pickle", url="memory://")
        super().__init__(app, **kwargs)
        #: One instance serves all threads.
        self.thread_safe = True
        #: Guards ``_kept``.
        self._lock = threading.Lock()
        self._kept: dict[bytes, Any] = {}
        self._counts: defaultdict[bytes, int] = defaultdict(int)
        self.result_consumer = _ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )

    def _add_pending_result(self, task_id: str, result: Any, weak: bool = False) -> None:
        self.result_consumer.waiting.setdefault(task_id, {})[id(result)] = result

    def remove_pending_result(self, result: Any) -> Any:
        """Tell a result object nothing any more."""
        waiting = self.result_consumer.waiting
        others = waiting.get(result.id, {})
        others.pop(id(result), None)
        if not others:
            waiting.pop(result.id, None)
        return result

    def as_uri(self, include_password: bool = False) -> str:
        """Return ``memory://``."""
        return "memory://"

    def encode(self, data: Any) -> bytes:
        """Pickle as in direct mode."""
        return values.dumps(data)[0]

    def decode(self, payload: bytes) -> Any:
        """Undo :meth:`encode`."""
        return values.loads(payload)

    def get(self, key: bytes) -> bytes | None:
        return self._kept.get(key)

    def mget(self, keys: list[bytes]) -> list[bytes | None]:
        return [self._kept.get(key) for key in keys]

    def set(self, key: bytes, value: bytes) -> None:
        self._kept[key] = value

    def _set_with_state(self, key: bytes, value: bytes, state: str) -> None:
        self.set(key, value)
        if key.startswith(self.task_keyprefix):
            self.result_consumer.stored(self.decode_result(value))

    def delete(self, key: bytes) -> None:
        self._kept.pop(key, None)
        with self._lock:
            self._counts.pop(key, None)

    def incr(self, key: bytes) -> int:
        with self._lock:
            self._counts[key] += 1
            return self._counts[key]
