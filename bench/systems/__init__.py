"""The systems that are compared. Each is one module, imported only in the process that runs it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import System

#: By name: the module, a description, and the packages that must be installed.
SYSTEMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "celery": ("celery_prefork", "Celery, prefork workers on Redis", ("celery", "redis")),
    "raycelery": ("raycelery_direct", "the same tasks through raycelery on Ray", ("raycelery", "ray")),
    "bridge": ("raycelery_bridge", "Celery's worker on Redis, its pool on Ray", ("raycelery", "ray", "redis")),
    "ray": ("ray_tasks", "bare Ray remote functions, the floor", ("ray",)),
    "dramatiq": ("dramatiq_workers", "dramatiq, processes on Redis", ("dramatiq", "redis")),
    "huey": ("huey_consumer", "huey, processes on Redis", ("huey", "redis")),
    "taskiq": ("taskiq_workers", "taskiq, processes on Redis", ("taskiq", "taskiq_redis")),
}


def missing(name: str) -> list[str]:
    """Return the packages that a system needs and that are not installed."""
    return [package for package in SYSTEMS[name][2] if importlib.util.find_spec(package) is None]


def load(name: str) -> type[System]:
    """Return the class of a system."""
    found: type[System] = importlib.import_module(f"{__name__}.{SYSTEMS[name][0]}").System
    return found
