"""The application class and the producer's side.

Also everything that ``celery.app`` has, so that imports from it may be renamed with the rest.
"""

from __future__ import annotations

from typing import Any

import celery.app as _celery_app


def __getattr__(name: str) -> Any:
    return getattr(_celery_app, name)
