"""The dispatcher's metrics, as Prometheus would read them from the node."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
import ray
from celery import Task

from raycelery import Celery
from tests.records import wait_for_file
from tests.support import RaySession, until

#: Ray's own reports come every ten seconds.
SECONDS = 60

app = Celery("metered")


@app.task(bind=True, max_retries=1)
def retries(self: Task) -> None:
    raise self.retry(exc=ValueError("as it should"), countdown=0)


@app.task(num_cpus=4)
def wait_for(path: str) -> None:
    wait_for_file(path)


Sample = dict[str, str]


def _samples() -> dict[str, list[tuple[Sample, float]]]:
    """Return what the node exports: tags and value of each sample, by metric."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, list[tuple[Sample, float]]] = {}
    for name, tags, value in re.findall(r"^(ray_raycelery_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        found.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', tags)), float(value)))
    return found


def _value(name: str, **tags: str) -> float | None:
    for sample, value in _samples().get(f"ray_raycelery_{name}", []):
        if tags.items() <= sample.items():
            return value
    return None


def test_queue_length_running_waiting_and_run_time(ray_session: RaySession, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    tags = {"application": "metered", "queue": "forecasts", "task": "tests.dispatcher.test_metrics.wait_for"}
    results = [wait_for.apply_async((go,), queue="forecasts") for _ in range(4)]
    try:
        until(lambda: _value("queue_length", **tags) == 3, SECONDS, _samples, every=0.5)
        until(lambda: _value("running", **tags) == 1, SECONDS, _samples, every=0.5)
    finally:
        Path(go).touch()
    for result in results:
        result.get(timeout=SECONDS)
    until(lambda: _value("finished_total", **tags, outcome="succeeded") == 4, SECONDS, _samples, every=0.5)
    until(lambda: _value("queue_length", **tags) == 0, SECONDS, _samples, every=0.5)
    assert _value("running", **tags) == 0
    assert _value("waiting_seconds_count", **tags) == 4
    assert _value("run_seconds_count", **tags) == 4
    waited, ran = _value("waiting_seconds_sum", **tags), _value("run_seconds_sum", **tags)
    assert waited is not None
    assert ran is not None
    assert waited > ran > 0, "three waited for as long as the first ran"
    assert _value("run_seconds_bucket", **tags, le="3600.0") is not None


def test_failures_and_retries_are_told_apart(ray_session: RaySession) -> None:
    tags = {"application": "metered", "queue": "outcomes", "task": "tests.dispatcher.test_metrics.retries"}
    result = retries.apply_async(queue="outcomes")
    with pytest.raises(ValueError, match="as it should"):
        result.get(timeout=SECONDS)
    revoked = retries.apply_async(queue="outcomes", countdown=3600)
    revoked.revoke()
    until(lambda: _value("finished_total", **tags, outcome="revoked") == 1, SECONDS, _samples, every=0.5)
    assert _value("finished_total", **tags, outcome="failed") == 1
    assert _value("finished_total", **tags, outcome="retried") == 1
    assert _value("finished_total", **tags, outcome="succeeded") is None
    assert _value("run_seconds_count", **tags) == 2, "what was revoked did not run"
