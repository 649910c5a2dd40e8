"""Celery's Redis result backend, with one round trip for a result where Celery's takes two.

Celery reads what is stored for a task, lest a success be overwritten, and then writes. Nearly always nothing is there
yet: a script looks and writes at once, and where it finds something it returns that and Celery goes on as ever. See
https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-backend-settings.
"""

from __future__ import annotations

import threading
from typing import Any

from celery.backends import redis as celery_redis

#: It is annotated in part only.
redis: Any = celery_redis

#: Stores ARGV[1] as KEYS[1] for ARGV[2] seconds (0: for ever), and publishes it; returns what is there if there is.
STORE = """
local found = redis.call('GET', KEYS[1])
if found then return found end
if tonumber(ARGV[2]) > 0 then
  redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return false
"""


class _Found(Exception):
    """Something is stored already; it is the argument."""


class RedisBackend(redis.RedisBackend):  # type: ignore[misc]
    """The backend of executors whose application has its results in Redis; keys and values are Celery's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What this thread takes to be stored, by key, while it stores a result.
        self._taken = threading.local()
        self._script: Any = None

    def encode_result(self, result: Any, state: str) -> Any:
        """Encode an error in Celery's form, also one that is no ``Exception``; Celery does so since 5.7."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return super().encode_result(result, state)

    def _store_result(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        key = self.get_key_for_task(task_id)
        try:
            self._taken.by_key = {key: None}
            return super()._store_result(task_id, *args, **kwargs)
        except _Found as found:
            self._taken.by_key = {key: found.args[0]}
            return super()._store_result(task_id, *args, **kwargs)
        finally:
            del self._taken.by_key

    def get(self, key: Any) -> Any:
        """Return what is stored."""
        taken = getattr(self._taken, "by_key", {})
        return taken[key] if key in taken else super().get(key)

    def _set(self, key: Any, value: Any, expires: int | None = None) -> None:
        taken = getattr(self._taken, "by_key", {})
        if key not in taken or taken[key] is not None:
            super()._set(key, value, *(() if expires is None else (expires,)))
            return
        if self._script is None:
            self._script = self.client.register_script(STORE)
        seconds = self.expires if expires is None else expires
        found = self._script(keys=[key], args=[value, seconds or 0])
        if found is not None:
            raise _Found(found)
