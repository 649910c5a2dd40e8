"""The same tasks on raycelery; what a project gets by changing the import."""

from __future__ import annotations

import os

from raycelery import Celery

from . import functions

app = Celery("micro", set_as_current=False)
# Where systems take turns on one cluster, executors hold this resource in place of CPUs: they stay warm meanwhile, and
# bare Ray's tasks need the CPUs. (The reverse would not be fair: a custom resource makes those about a tenth slower.)
if slot := os.environ.get("RAYCELERY_MICRO_SLOT"):
    app.conf.ray_num_cpus = 0
    app.conf.ray_queues = {"celery": {"resources": {slot: 1}}}

# Unshared: the tasks of stock Celery's application in the benchmark's process have the same names.
noop = app.task(functions.noop, shared=False)
total = app.task(functions.total, shared=False)
checksum = app.task(functions.checksum, shared=False)

#: An application of its own, so with a dispatcher of its own, whose queue hardly moves: its memory is measured.
waiting = Celery("micro-waiting", set_as_current=False)
stuck = waiting.task(functions.noop, name="stuck", shared=False, rate_limit="1/h")
