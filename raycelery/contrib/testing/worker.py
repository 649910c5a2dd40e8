"""``start_worker`` as in ``celery.contrib.testing.worker``: tasks run in a thread of the test's process, or on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from celery import _state
from celery.contrib.testing import worker as celery_worker
from celery.exceptions import WorkerShutdown
from celery.result import allow_join_result
from celery.signals import setup_logging

from raycelery.contrib.testing.in_process import in_process
from raycelery.contrib.testing.memory_transport import interrupt

#: Kept, for tests may put ours in its place.
_celerys = celery_worker.start_worker

#: The pool by which tasks run on Ray, in processes of their own, as in production.
ON_RAY = "ray"


class StandIn:
    """What tests may ask of the worker that there is none of where tasks run on Ray.

    Arguments:
        app: whose tasks it would run.
    """

    hostname = "ray"

    def __init__(self, app: Any) -> None:
        self.app = app

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Do nothing: a task may be called as soon as it is written."""


@contextmanager
def start_worker(
    app: Any,
    concurrency: int = 1,
    pool: str = "solo",
    perform_ping_check: bool = True,
    ping_task_timeout: float | None = None,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run tasks of ``app`` while the context lasts, and yield the worker.

    Follows https://docs.celeryq.dev/en/stable/userguide/testing.html.

    Arguments:
        app: the application; one in bridge mode gets Celery's own embedded worker, with its own broker.
        concurrency: of ``"threads"``; on Ray each task says what it needs.
        pool: ``"solo"``: one task after the other in a thread of this process, which sees what a test has patched;
            ``"threads"``: several at once; ``"ray"``: on Ray, in other processes, as in production.
        perform_ping_check: run ``celery.ping`` and wait for its answer.
        ping_task_timeout: seconds to wait for it; None: 10, and 60 on Ray, which may have to be started.
        kwargs: more arguments of Celery's ``start_worker``; logging is left as it is unless ``loglevel`` or
            ``logfile`` is among them.

    Raises:
        RuntimeError: ``celery.ping`` answered something else, or a task did not end in ``shutdown_timeout`` seconds.
        celery.exceptions.TimeoutError: it did not answer in time.
    """
    if perform_ping_check:
        from celery.contrib.testing import tasks  # noqa: F401  (registers celery.ping)
    direct = getattr(app, "direct", False)
    if pool == ON_RAY and direct:
        with _on_ray(app, perform_ping_check, 60 if ping_task_timeout is None else ping_task_timeout) as stand_in:
            yield stand_in
        return
    kwargs.update(concurrency=concurrency, pool=pool, perform_ping_check=perform_ping_check)
    if ping_task_timeout is not None:
        kwargs["ping_task_timeout"] = ping_task_timeout
    if not direct:
        with _celerys(app, **kwargs) as worker:
            yield worker
        return
    logging = nullcontext() if {"loglevel", "logfile"} & kwargs.keys() else _logging_left_alone()
    with in_process(app), _current_app_put_back(), logging, _celerys(app, **kwargs) as worker:
        try:
            yield worker
        finally:
            # Celery's own way asks every worker of the process to stop, and waits for each to look.
            worker.consumer.call_soon(_stop)
            interrupt()
            worker.blueprint.shutdown_complete.wait(kwargs.get("shutdown_timeout", 10.0))


@contextmanager
def _current_app_put_back() -> Iterator[None]:
    """Have workers that go on find the settings of their application: Celery's tracer asks the current one."""
    current, default = _state._tls.current_app, _state.default_app
    try:
        yield
    finally:
        _state._set_current_app(current)
        _state.set_default_app(default)


@contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Keep Celery from setting up logging for a worker, after which pytest's caplog and capsys have nothing."""

    def handled(**kwargs: Any) -> None:
        """Do nothing: that there is a handler is what counts."""

    setup_logging.connect(handled, weak=False)
    try:
        yield
    finally:
        setup_logging.disconnect(handled)


def _stop() -> None:
    raise WorkerShutdown(0)


@contextmanager
def _on_ray(app: Any, perform_ping_check: bool, ping_task_timeout: float) -> Iterator[StandIn]:
    app.finalize()
    app.set_current()
    app.set_default()
    celery_worker.test_worker_starting.send(sender=app)
    if perform_ping_check:
        from celery.contrib.testing.tasks import ping

        with allow_join_result():
            answer = app.tasks[ping.name].delay().get(timeout=ping_task_timeout)
        if answer != "pong":
            raise RuntimeError(f"celery.ping answered {answer!r}")
    worker = StandIn(app)
    celery_worker.test_worker_started.send(sender=app, worker=worker, consumer=None)
    try:
        yield worker
    finally:
        celery_worker.test_worker_stopped.send(sender=app, worker=worker)
