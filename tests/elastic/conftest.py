"""A cluster with an autoscaler, for the tests of each file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray

from tests.elastic.autoscaling import Elastic, elastic
from tests.support import until

#: Seconds after which nodes and executors that have nothing to do go.
IDLE_SECONDS = 6.0


@pytest.fixture(scope="module")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Elastic]:
    """Zero to four nodes of 4 CPUs, one of which may be an odd one instead; this process uses it.

    A module's `AUTOSCALER` says which version of the autoscaler it has.
    """
    os.environ["RAY_AUTH_MODE"] = "disabled"
    types = {"cpu": {"CPU": 4, "max_workers": 4}, "odd": {"CPU": 1, "odd": 1, "max_workers": 1}}
    with elastic(types, IDLE_SECONDS, v2=request.module.AUTOSCALER == 2) as cluster:
        ray.init(address=cluster.address, namespace="raycelery", log_to_driver=False)
        yield cluster
        from raycelery.client import session

        session.shutdown()
        ray.shutdown()


@pytest.fixture
def cluster(shared_cluster: Elastic) -> Elastic:
    """The cluster, without nodes."""
    until(lambda: not shared_cluster.nodes(), 200, lambda: f"nodes stay: {shared_cluster.alive()}", every=0.2)
    return shared_cluster
