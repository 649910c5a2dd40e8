"""The same tasks on raycelery; what a project gets by changing the import."""

from __future__ import annotations

from bench.micro import functions
from raycelery import Celery

app = Celery("micro", set_as_current=False)

noop = app.task(functions.noop)
total = app.task(functions.total)
checksum = app.task(functions.checksum)

#: An application of its own, so with a dispatcher of its own, whose queue hardly moves: its memory is measured.
waiting = Celery("micro-waiting", set_as_current=False)
stuck = waiting.task(functions.noop, name="stuck", rate_limit="1/h")
