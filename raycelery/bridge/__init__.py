"""Celery's worker, consuming a real broker, with a pool that executes on Ray.

``celery -A proj worker`` uses it where ``ray_mode="bridge"``; a project of plain ``celery`` with
``CELERY_CUSTOM_WORKER_POOL=raycelery.bridge:Pool celery -A proj worker -P custom``.
"""

from __future__ import annotations

from raycelery.bridge.pool import Pool

__all__ = ["Pool"]
