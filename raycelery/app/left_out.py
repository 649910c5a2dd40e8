"""What a project has a worker do that has no part in running its tasks on Ray: it is named, not dropped in silence.

Executors do what a worker's children inherit, see :mod:`raycelery.executor.setup`; the rest belongs to a worker's own
process, which direct mode does not have.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

import celery
from celery import signals
from celery.bootsteps import StartStopStep
from kombu.utils.imports import symbol_by_name

logger = logging.getLogger(__name__)

#: Signals that only a worker's own process sends.
_OF_THE_WORKER = (
    "worker_before_create_process",
    "worker_ready",
    "heartbeat_sent",
    "worker_shutting_down",
    "worker_shutdown",
)
#: Signals whose sender is a worker's name.
_BY_NAME = ("celeryd_init", "celeryd_after_setup")
#: Packages whose handlers and bootsteps are no project's.
_OTHERS = frozenset({"celery", "kombu", "raycelery"})


def warn(app: celery.Celery, *, bridge: bool = False) -> None:
    """Log what does not run, if there is anything.

    Arguments:
        app: whose.
        bridge: whether Celery's worker runs, so that only the executors do not do it.
    """
    left = _handlers(_BY_NAME, named=True)
    if left:
        logger.warning("handlers for a worker's name do not run in executors, which have none: %s", ", ".join(left))
    if bridge:
        return
    left = [f"the bootstep {name}" for name in _bootsteps(app)] + _handlers(_OF_THE_WORKER)
    if left:
        logger.warning(
            "there is no worker process in direct mode, so these do not run: %s (ray_mode='bridge' has one)",
            ", ".join(left),
        )


def _handlers(names: tuple[str, ...], *, named: bool = False) -> list[str]:
    """Return the project's handlers of signals; those for one sender only where ``named``."""
    found = []
    for name in names:
        for (_, sender), reference in list(getattr(signals, name).receivers):
            handler = reference() if isinstance(reference, weakref.ReferenceType) else reference
            if handler is None or _is_others(handler) or (named and not isinstance(sender, (str, bytes))):
                continue
            found.append(f"{getattr(handler, '__qualname__', handler)!s} of {name}")
    return found


def _bootsteps(app: celery.Celery) -> list[str]:
    """Return what would be started: all of the consumer's, and of the worker's those with a ``start`` of their own."""
    consumer = [symbol_by_name(step) for step in app.steps["consumer"]]
    worker = [symbol_by_name(step) for step in app.steps["worker"]]
    started = [step for step in worker if issubclass(step, StartStopStep) and step.start is not StartStopStep.start]
    return sorted(step.name for step in consumer + started if not _is_others(step))


def _is_others(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _OTHERS
