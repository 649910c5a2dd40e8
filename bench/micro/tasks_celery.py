"""The tasks on stock Celery; imported by its worker."""

from __future__ import annotations

import os

from celery import Celery

from . import functions

_redis = os.environ.get("RAYCELERY_MICRO_REDIS", "redis://127.0.0.1:6379/0")
app = Celery("micro", broker=_redis, backend=_redis, set_as_current=False)
# Frames need pickle; everything else uses Celery's default, JSON.
app.conf.accept_content = ["json", "pickle"]

# Not shared: the tasks of raycelery's application in this process have the same names.
noop = app.task(functions.noop, shared=False)
total = app.task(functions.total, shared=False)
checksum = app.task(functions.checksum, shared=False, serializer="pickle")
