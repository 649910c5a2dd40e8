"""Tracing: one trace from the caller through a chord to what follows it, and errors that name their task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chord

from tests.support import until

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60


def test_opentelemetry() -> None:
    from opentelemetry import trace

    from tests.ecosystem import otel

    otel.app.set_current()
    with trace.get_tracer("tests").start_as_current_span("request"):
        mine = otel.trace_id()
        result = (chord([otel.part.si(), otel.part.si()], otel.body.s()) | otel.after.s()).delay()
        assert result.get(timeout=SECONDS) == [mine] * 4


def test_ddtrace() -> None:
    from tests.ecosystem import datadog

    datadog.app.set_current()
    with datadog.tracer.trace("request") as span:
        result = chord([datadog.part.si(), datadog.part.si()], datadog.body.s()).delay()
        assert result.get(timeout=SECONDS) == [span.trace_id] * 3


def sent_to_sentry(path: Path) -> dict[str, Any]:
    """Return what is sent about a task that failed, with its error looked at."""
    until(path.exists, SECONDS, "nothing is sent")
    event: dict[str, Any] = json.loads(path.read_text())
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"], error["mechanism"]["type"]) == ("ValueError", "no such zone", "celery")
    return event


def test_sentry(environment: Path) -> None:
    import sentry_sdk

    from tests.ecosystem import sentry

    with sentry_sdk.start_transaction(name="request") as request:
        result = sentry.fail.delay()
        with pytest.raises(ValueError, match="no such zone"):
            result.get(timeout=SECONDS)
    event = sent_to_sentry(environment / result.id)
    assert event["extra"]["celery-job"]["task_name"] == sentry.fail.name
    assert event["contexts"]["trace"]["trace_id"] == request.trace_id


def test_what_is_no_exception_is_its_tasks_failure_under_sentry(environment: Path) -> None:
    from tests.ecosystem import sentry

    result = sentry.cancel.delay()
    with pytest.raises(asyncio.CancelledError, match="no longer wanted"):
        result.get(timeout=SECONDS)
    # Handlers are called once the result is there.
    until((environment / f"{result.id}.failed").exists, SECONDS, "on_failure is not called")


# How the tasks of a bridge's project find the id of the trace that they are part of.
TRACE_IDS = {
    "opentelemetry": """
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
CeleryInstrumentor().instrument()


def trace_id():
    return trace.get_current_span().get_span_context().trace_id
""",
    "ddtrace": """
import ddtrace
from ddtrace.trace import tracer

ddtrace.config.celery["distributed_tracing"] = True
ddtrace.patch(celery=True)


def trace_id():
    span = tracer.current_span()
    return 0 if span is None else span.trace_id
""",
}
TRACED = """
@app.task
def traced(*before):
    return str(trace_id())


@app.task
def traces(parts):
    return [*parts, str(trace_id())]


@app.task
def begin():
    from celery import chord

    chord([traced.si(), traced.si()], traces.s().set(task_id=f"body-{trace_id()}")).delay()
    return str(trace_id())
"""


@pytest.mark.parametrize("package", TRACE_IDS)
def test_traces_under_a_bridge(
    package: str, project: Callable[..., Any], bridge_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
    monkeypatch.setenv("DD_REMOTE_CONFIGURATION_ENABLED", "false")
    shop = project(more=TRACE_IDS[package] + TRACED)
    bridge_worker(shop, concurrency=2)
    mine = shop.send("begin").get(timeout=SECONDS)
    assert mine != "0", "it has no trace"
    assert shop.app.AsyncResult(f"body-{mine}").get(timeout=SECONDS) == [mine] * 3


# As Sentry's documentation has it: what the worker does before it forks.
SENTRY = """
import sentry_sdk
from celery import signals
from sentry_sdk.integrations.celery import CeleryIntegration
from tests.ecosystem.sent import write


@signals.celeryd_init.connect
def init(**_):
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", integrations=[CeleryIntegration()], before_send=write)
"""


def test_sentry_under_a_bridge(
    environment: Path, project: Callable[..., Any], bridge_worker: Callable[..., Any]
) -> None:
    shop = project(more=SENTRY)
    bridge_worker(shop, concurrency=1)
    result = shop.send("fail", "no such zone")
    with pytest.raises(ValueError, match="no such zone"):
        result.get(timeout=SECONDS)
    assert sent_to_sentry(environment / result.id)["extra"]["celery-job"]["task_name"] == f"{shop.module}.fail"
