"""What Celery's worker does before it forks, and its children inherit, done in an executor.

In Celery's order, see https://docs.celeryq.dev/en/stable/userguide/signals.html and
https://docs.celeryq.dev/en/stable/userguide/extending.html: ``celeryd_init``, ``worker_init``, logging, the worker's
bootsteps as far as they are made (``__init__``, ``include_if``, ``create``), ``celeryd_after_setup``; then what a child
does: ``worker_process_init``. What is of the worker's own process, as ``start`` of a bootstep and ``worker_ready``, is
not done: :mod:`raycelery.app.left_out` tells of it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import celery
from celery import signals
from celery.app.trace import setup_worker_optimizations
from celery.utils.graph import DependencyGraph
from kombu.utils.imports import symbol_by_name

from raycelery.executor.output import OUTPUT

logger = logging.getLogger(__name__)


class NotHere(AttributeError):
    """A part of Celery's worker that an executor does not have."""


class Worker:
    """Stands where handlers and bootsteps expect Celery's worker: what an executor has in common with it.

    Arguments:
        app: the application.
        hostname: the executor's name.
    """

    #: It runs one message after the other.
    concurrency = 1
    #: The pool that an executor is most like.
    pool_cls = "prefork"
    use_eventloop = False
    logfile = None
    pidfile = None

    def __init__(self, app: celery.Celery, hostname: str) -> None:
        self.app = app
        self.hostname = hostname
        self.loglevel = _level(app)
        self.pid = os.getpid()
        #: Bootsteps that a worker would start and stop; nothing does so here.
        self.steps: list[Any] = []
        #: All bootsteps that were made, as in the worker's blueprint: signals hold methods of theirs weakly.
        self.order: list[Any] = []
        self.options: dict[str, Any] = {"concurrency": 1, "loglevel": self.loglevel, "logfile": None}

    def __getattr__(self, name: str) -> Any:
        raise NotHere(f"executors have no worker.{name}")


#: What the worker's part was done with; kept, as its bootsteps are to live as long as the process. Ray has a process
#: run several messages of ``executor="function"`` one after the other.
_worker: Worker | None = None


def begin(app: celery.Celery, hostname: str) -> None:
    """Make this process ready, as a worker's children are when they begin; the worker's part once in a process.

    Errors of signal handlers are logged, as Celery does; ``sys.exit`` in one is raised.

    Arguments:
        app: the loaded application.
        hostname: the executor's name.

    Raises:
        Exception: what the handler of ``setup_logging`` or a bootstep raises.
    """
    global _worker
    if _worker is None or _worker.app is not app:
        _worker = _as_worker(app, hostname)
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender=hostname)


def _as_worker(app: celery.Celery, hostname: str) -> Worker:
    worker = Worker(app, hostname)
    setup_worker_optimizations(app, hostname)
    signals.celeryd_init.send(sender=hostname, instance=worker, conf=app.conf, options=worker.options)
    signals.worker_init.send(sender=worker)
    _set_up_logging(app)
    _make_bootsteps(app, worker)
    signals.celeryd_after_setup.send(sender=hostname, instance=worker, conf=app.conf)
    return worker


def _make_bootsteps(app: celery.Celery, worker: Worker) -> None:
    """Make the bootsteps that the project has added to the worker; those of Celery's own have no use here."""
    steps = {symbol_by_name(step) for step in app.steps["worker"]}
    required = ((step, [one for one in map(symbol_by_name, step.requires) if one in steps]) for step in steps)
    for step in DependencyGraph(required).topsort():
        try:
            made = step(worker, **worker.options)
            worker.order.append(made)
            made.include(worker)
        except NotHere as exc:
            logger.warning("the bootstep %s has no effect on tasks: %s", step.name, exc)


def _level(app: celery.Celery) -> int:
    level: int = logging.getLevelName(str(app.conf.ray_log_level or "INFO").upper())
    return level


def _set_up_logging(app: celery.Celery) -> None:
    """Log as Celery's worker does, to whoever submitted the task; see :mod:`raycelery.executor.output`."""
    answers = app.log.setup_logging_subsystem(loglevel=_level(app), logfile=sys.stderr, colorize=False)
    for _, answer in answers or ():
        if isinstance(answer, Exception):  # Celery raises it itself since 5.7
            app.log.already_setup = False
            raise answer
    OUTPUT.handle_loggers()
