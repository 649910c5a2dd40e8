"""An application under ddtrace, whose tasks return the id of the trace they are part of."""

from __future__ import annotations

import os

os.environ.update(DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_REMOTE_CONFIGURATION_ENABLED="false")

import ddtrace
from ddtrace.trace import tracer

from raycelery import Celery

ddtrace.config.celery["distributed_tracing"] = True
ddtrace.patch(celery=True)
app = Celery("ecosystem-datadog", set_as_current=False)
app.conf.ray_idle_seconds = 5.0


def trace_id() -> int:
    span = tracer.current_span()
    return 0 if span is None else int(span.trace_id)


@app.task
def part() -> int:
    return trace_id()


@app.task
def body(parts: list[int]) -> list[int]:
    return [*parts, trace_id()]
