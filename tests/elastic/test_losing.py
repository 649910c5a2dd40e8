"""Nodes that are taken away, with and without notice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import ray
from celery import group
from celery.exceptions import WorkerLostError

from tests.elastic import jobs
from tests.elastic.autoscaling import Elastic
from tests.elastic.jobs import overview
from tests.support import until

SECONDS = 100
#: The first version does not know of nodes that will be taken away, and adds none in their place.
AUTOSCALER = 2
#: Ray's number for a node that its cloud takes back.
PREEMPTION = 2


def drain(node: str, seconds: float) -> None:
    """Announce that a node will be taken away, as a cloud does it."""
    client = ray._private.worker.global_worker.gcs_client
    deadline = int((time.time() + seconds) * 1000)
    accepted, why = client.drain_node(node, PREEMPTION, "it is a spot instance", deadline)
    assert accepted, why


def test_a_node_that_will_be_taken_away(cluster: Elastic, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("ends", "late", "early")]
    ends, early = (jobs.until_there.delay(str(path)) for path in (paths[0], paths[2]))
    late = jobs.second_time.delay(str(paths[1]))
    until(lambda: all(path.with_suffix(".began").exists() for path in paths), SECONDS)
    nodes = cluster.nodes()
    for node in nodes:
        drain(node, 15)
    until(lambda: {node["id"] for node in overview()["nodes"] if node["draining"]} == set(nodes), SECONDS)
    after = jobs.work.delay(0.0)
    paths[0].touch()
    assert ends.get(timeout=SECONDS) in nodes, "what runs may end"
    assert after.get(timeout=SECONDS)["node"] not in nodes, "nothing new goes there"
    assert late.get(timeout=SECONDS) not in nodes, "what is acknowledged late runs again elsewhere"
    with pytest.raises(WorkerLostError, match="taken away"):
        early.get(timeout=SECONDS)


def test_a_node_that_is_killed_under_load(cluster: Elastic) -> None:
    value = jobs.large.delay()
    assert len(value.get(timeout=SECONDS)) == 4_000_000
    results = group(jobs.work.s(1.0) for _ in range(24)).apply_async()
    lost = until(lambda: len(cluster.nodes()) >= 3 and results.completed_count() > 4 and cluster.nodes()[0], SECONDS)
    cluster.kill(lost)
    outcomes = [result.get(timeout=SECONDS, propagate=False) for result in results]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert all(isinstance(outcome, WorkerLostError) for outcome in failed)
    assert len(failed) <= 2, "only what ran there"
    jobs.app.AsyncResult(value.id).get(timeout=SECONDS)
