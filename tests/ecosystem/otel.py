"""An application under OpenTelemetry, whose tasks return the id of the trace they are part of."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from raycelery import Celery

trace.set_tracer_provider(TracerProvider())
CeleryInstrumentor().instrument()
app = Celery("ecosystem-otel", set_as_current=False)
app.conf.ray_idle_seconds = 5.0


def trace_id() -> str:
    return f"{trace.get_current_span().get_span_context().trace_id:x}"


@app.task
def part() -> str:
    return trace_id()


@app.task
def body(parts: list[str]) -> list[str]:
    return [*parts, trace_id()]


@app.task
def after(before: list[str]) -> list[str]:
    return [*before, trace_id()]
