"""``AsyncResult`` that may be awaited: ``value = await task.delay()``; an addition to Celery's."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import celery.result


class AsyncResult(celery.result.AsyncResult):  # type: ignore[misc]
    """Celery's ``AsyncResult``; awaiting it is ``get()`` without blocking the event loop."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        wait = getattr(self.backend, "wait_async", None)
        if wait is None:
            import asyncio

            return await asyncio.to_thread(self.get)
        meta = await wait(self)
        self._maybe_set_cache(meta)
        return self.maybe_throw()
