"""Has an application's tasks run in this process, as Celery's own testing worker has them, for as long as a test needs.

Tasks that run in the test's process see what the test has patched, its module globals and its in-memory databases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.serialization import register

from raycelery.app.settings import Unchosen
from raycelery.contrib.testing.memory_transport import broker
from raycelery.serialization import values

#: The serializer of applications that chose none: any picklable value, as in direct mode.
ANY_VALUE = Unchosen("raycelery")

#: By its name: Celery before 5.7 takes no class.
BACKEND = "raycelery.contrib.testing.memory_backend:MemoryBackend"

register(
    ANY_VALUE,
    lambda value: values.dumps(value)[0],
    values.loads,
    content_type="application/x-raycelery",
    content_encoding="binary",
)


@contextmanager
def in_process(app: Any) -> Iterator[None]:
    """Let messages of ``app`` go through a queue in this process's memory, and results stay in it.

    Arguments:
        app: an application in direct mode. Its settings are put back in the end.
    """
    app.finalize()
    conf = app.conf
    backend_cls = app.backend_cls
    with broker() as url:
        changes = {
            "ray_mode": "bridge",  # a broker is kept: this one
            **dict.fromkeys(("broker_url", "broker_read_url", "broker_write_url"), url),
            "accept_content": [*conf.accept_content, ANY_VALUE],
        }
        if type(conf.task_serializer) is Unchosen:
            # Of tasks that are made from now on; direct mode reads no name of a serializer that nobody chose.
            changes["task_serializer"] = ANY_VALUE
            for task in app.tasks.values():
                if type(task.serializer) is Unchosen:
                    type(task).serializer, task._exec_options = ANY_VALUE, None
        before = {key: conf.changes[key] for key in changes if key in conf.changes}
        if not conf.ray_keep_result_backend and not str(conf.result_backend).startswith("disabled"):
            app.backend_cls = BACKEND
        conf.update(changes)
        _forget_connections(app)
        try:
            yield
        finally:
            for key in changes:
                if key in before:
                    conf[key] = before[key]
                else:
                    del conf[key]
            app.backend_cls = backend_cls
            _forget_connections(app)


def _forget_connections(app: Any) -> None:
    """Have ``app`` choose its transport and backend anew; Celery keeps the ones it has once used."""
    app._pool = app._backend_cache = None
    app._local.__dict__.pop("backend", None)
    app.amqp._producer_pool = None
    for name in ("control", "events"):
        app.__dict__.pop(name, None)
