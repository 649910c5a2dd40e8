"""Common part of the systems that are Celery applications: stock Celery and raycelery."""

from __future__ import annotations

from typing import Any

from celery import chain, chord

from ..calls import Call
from ..record import recorded
from .base import TIMEOUT, System, setup_from_environment


def register(app: Any) -> None:
    """Make the workload's functions tasks of ``app``, as ``@app.task`` would."""
    setup = setup_from_environment()
    app.conf.update(
        task_serializer=setup["serializer"],
        result_serializer=setup["serializer"],
        accept_content=["json", "pickle"],
        **setup["celery"],
    )
    for target, options in setup["targets"].items():
        # Not shared: two applications in one process have tasks of the same names.
        app.task(recorded(target), name=target, shared=False, **options)


class CelerySystem(System):
    """A system that is a Celery application."""

    #: Applications by name.
    apps: dict[str, Any]

    def options(self, call: Call) -> dict[str, Any]:
        """Return options of ``apply_async`` for a call, other than those set on the task."""
        return {}

    def signature(self, call: Call) -> Any:
        """Return a call as a signature, for canvases."""
        return self.apps[call.application].tasks[call.target].s(*call.args).set(**self.options(call))

    def submit(self, call: Call) -> Any:
        return self.apps[call.application].tasks[call.target].apply_async(call.args, **self.options(call))

    def take(self, handle: Any) -> Any:
        return handle.get(timeout=TIMEOUT)

    def chord(self, calls: list[Call], body: str) -> Any:
        finish = self.apps[calls[0].application].tasks[body].s()
        return self.take(chord([self.signature(call) for call in calls], finish).apply_async())

    def chain(self, first: Call, length: int) -> Any:
        again = self.apps[first.application].tasks[first.target]
        return self.take(chain(self.signature(first), *[again.s() for _ in range(length - 1)]).apply_async())
