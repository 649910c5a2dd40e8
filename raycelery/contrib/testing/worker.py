"""``start_worker`` as in ``celery.contrib.testing.worker``: in direct mode there is no worker to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.contrib.testing import worker as celery_worker
from celery.result import allow_join_result

#: Kept, for tests may put ours in its place.
_celerys = celery_worker.start_worker


class StandIn:
    """What tests may ask of the worker that there is none of.

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
    app: Any, perform_ping_check: bool = True, ping_task_timeout: float = 60.0, **kwargs: Any
) -> Iterator[Any]:
    """Make sure that tasks of ``app`` run, and yield something that stands for the worker.

    Arguments:
        app: the application; one in bridge mode gets Celery's own embedded worker.
        perform_ping_check: run ``celery.ping`` and wait for its answer.
        ping_task_timeout: seconds to wait for it.
    """
    if not getattr(app, "direct", False):
        with _celerys(
            app, perform_ping_check=perform_ping_check, ping_task_timeout=ping_task_timeout, **kwargs
        ) as worker:
            yield worker
        return
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
