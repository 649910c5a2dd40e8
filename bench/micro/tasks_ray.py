"""The same tasks on raycelery."""

from __future__ import annotations

import os

from raycelery import Celery

from . import functions

app = Celery("micro", set_as_current=False)
# When systems share a cluster, executors request this resource instead of CPUs, so that they stay up while plain Ray's
# tasks use the CPUs. (Not the other way round: a custom resource makes Ray's tasks about a tenth slower.)
if slot := os.environ.get("RAYCELERY_MICRO_SLOT"):
    app.conf.ray_num_cpus = 0
    app.conf.ray_queues = {"celery": {"resources": {slot: 1}}}

# Not shared: the tasks of stock Celery's application in the benchmark's process have the same names.
noop = app.task(functions.noop, shared=False)
total = app.task(functions.total, shared=False)
checksum = app.task(functions.checksum, shared=False)

#: Another application, and so another dispatcher, whose memory is measured with a long queue.
waiting = Celery("micro-waiting", set_as_current=False)
stuck = waiting.task(functions.noop, name="stuck", shared=False, rate_limit="1/h")
