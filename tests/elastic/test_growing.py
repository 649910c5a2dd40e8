"""Clusters that grow and shrink, on Ray's own autoscaler."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import group

from raycelery.errors import InfeasibleError
from tests.elastic import jobs
from tests.elastic.autoscaling import Elastic
from tests.support import until

SECONDS = 100
AUTOSCALER = 1


def said() -> str:
    """What `raycelery status` says of what waits for nodes."""
    return str(jobs.overview()["waits_for_nodes"])


def test_from_zero_to_four_nodes_and_back_to_zero(cluster: Elastic, tmp_path: Path) -> None:
    path = tmp_path / "go on"
    first = [jobs.until_there.delay(str(path), number) for number in range(8)]
    rest = group(jobs.work.s(0.1) for _ in range(32)).apply_async()
    try:
        until(lambda: said() == "40 tasks wait for 2 CPU: autoscaler is adding 4 nodes", SECONDS, said)
        until(lambda: len(list(tmp_path.iterdir())) == 8, SECONDS, said)
        # The autoscaler itself may add one more than it is to have, where nodes take long to come.
        assert len(cluster.nodes()) >= 4
    finally:
        path.touch()
    assert {result.get(timeout=SECONDS) for result in first} <= set(cluster.nodes())
    rest.get(timeout=SECONDS)
    until(lambda: not said(), SECONDS, said)
    until(lambda: not cluster.nodes(), SECONDS, lambda: f"nodes stay: {cluster.alive()}", every=0.2)


def test_a_request_that_no_node_type_holds_fails_at_once(cluster: Elastic) -> None:
    before = time.monotonic()
    with pytest.raises(InfeasibleError, match="no node has 16 CPU: the largest node type of the autoscaler is 'cpu'"):
        jobs.work.apply_async((0.0,), num_cpus=16).get(timeout=SECONDS)
    assert time.monotonic() - before < jobs.app.conf.ray_infeasible_seconds
    assert not cluster.nodes()


def test_two_shapes_get_a_node_each(cluster: Elastic) -> None:
    results = jobs.work.delay(0.0), jobs.work.apply_async((0.0,), num_cpus=1, resources={"odd": 1})
    assert {result.get(timeout=SECONDS)["node"] for result in results} == set(cluster.nodes())
    assert len(cluster.nodes()) == 2


def test_a_burst_that_is_over_before_a_node_could_come_asks_for_none(cluster: Elastic) -> None:
    # A node comes, which tells how long that takes, and how long the task runs.
    group(jobs.work.s(0.2) for _ in range(2)).apply_async().get(timeout=SECONDS)
    [node] = cluster.nodes()
    runs = group(jobs.work.s(0.2) for _ in range(10)).apply_async().get(timeout=SECONDS)
    assert {run["node"] for run in runs} == {node}
    assert cluster.nodes() == [node]
    assert "1 node" not in said()
