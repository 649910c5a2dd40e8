"""Kills nodes of a cluster of its own, with all their processes: ``python -m tests.chaos.nodes FILE``.

A program, since a process can use one Ray only.
"""

from __future__ import annotations

import os
import random
import sys

import ray
from celery.exceptions import WorkerLostError
from ray.cluster_utils import Cluster

from raycelery.client import session
from tests.chaos import work
from tests.chaos.work import again, once
from tests.support import short_directory, until

SECONDS = 200
TASKS = 600


def main(path: str) -> None:
    """Have a cluster with a head that runs nothing and two nodes, as the processes of this machine."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with short_directory() as folder:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": str(folder)},
        )
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=2)
            ray.init(address=cluster.address, namespace="raycelery", log_to_driver=False)
            kill_nodes(cluster, path)
        finally:
            session.shutdown()
            ray.shutdown()
            cluster.shutdown()


def kill_nodes(cluster: Cluster, path: str) -> None:
    """Call tasks, kill two nodes meanwhile, and look at the history."""
    seed = int(os.environ.get("RAYCELERY_CHAOS_SEED", random.randrange(10**6)))
    rng = random.Random(seed)
    once.delay(path, 0, 0.0).get(timeout=SECONDS)
    results = {}
    for index in range(1, TASKS + 1):
        task = again if index % 3 == 0 else once
        results[index] = task.delay(path, index, rng.choice([0.001, 0.001, 0.05]))
        if index % 200 == 0:
            until(lambda: len(work.begun(path)) > index - 150, SECONDS)  # noqa: B023
            cluster.remove_node(rng.choice(list(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(num_cpus=2)
    lost = 0
    for index, result in results.items():
        try:
            assert result.get(timeout=SECONDS) == index
        except WorkerLostError:
            assert index % 3, f"{index} may run again"
            lost += 1
    begun = work.begun(path)
    twice = {index: count for index, count in begun.items() if count > 1 and index % 3}
    assert twice == {}, twice
    assert sum(index > 0 for index in begun) >= TASKS - lost
    # On any other node it might have gone with it.
    dispatcher = next(one for one in ray._private.state.actors().values() if one["Name"] == "raycelery:chaos")
    assert dispatcher["Address"]["NodeID"] == cluster.head_node.node_id
    assert int(dispatcher["NumRestarts"]) == 0
    print(f"RAYCELERY_CHAOS_SEED={seed} lost: {lost}")
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1])
