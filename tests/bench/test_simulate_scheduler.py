"""The played cluster: a small run of what the simulation does at full size."""

from __future__ import annotations

import pytest

from bench.micro import simulate_growth
from bench.micro.simulate_scheduler import Cluster, backlogs


def test_everything_finishes_and_cpus_are_used() -> None:
    cluster = Cluster(nodes=20)
    cluster.submit(4_000, queues=40)
    played = cluster.run()
    assert played.finished == 4_000
    assert cluster.scheduler.view.pending == 0
    assert all(limit.used == 0 for limit in cluster.scheduler.view.limits.values())
    assert set(played.waits) == {f"q{i}" for i in range(40)}


def test_a_decision_costs_as_much_at_ten_times_the_backlog() -> None:
    costs = {size: cost for size, _, cost in backlogs(20, 40, [5_000, 50_000])}
    # Far from the tenfold that a scan of the backlog would cost, however noisy the machine.
    assert costs[50_000] < 4 * costs[5_000]


@pytest.mark.parametrize("spot", [False, True])
def test_a_cluster_grows_and_shrinks_for_little_more_than_the_work_needs(spot: bool) -> None:
    cluster = simulate_growth.Cluster(20, spot=spot)
    cluster.submit(20 * 16 * 1200.0)
    cluster.at(3600.0, cluster.submit, 16 * 600.0)
    played = cluster.run()
    assert played.finished > 1000
    assert cluster.scheduler.view.pending == 0
    assert not cluster.nodes
    assert played.most_nodes == 20
    assert played.in_vain <= 4
    needed = played.work / simulate_growth.CPUS + played.nodes * simulate_growth.NODE_IDLE_SECONDS
    assert played.node_seconds < 1.3 * needed
