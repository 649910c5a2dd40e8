"""Measures how a cluster grows and shrinks: ``python -m tests.elastic.measure``, about a minute, prints a table."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time

import ray
from celery import group

from tests import support

support.prepare_environment()

TASKS, SECONDS, NODES, IDLE_SECONDS = 40, 3.0, 4, 12.0


def main() -> None:
    """Run 40 tasks of 2 CPUs and 3 s on zero to four nodes of 4 CPUs, and wait until all nodes are gone."""
    from tests.elastic.autoscaling import elastic

    os.environ["RAY_AUTH_MODE"] = "disabled"
    with elastic({"cpu": {"CPU": 4, "max_workers": NODES}}, IDLE_SECONDS, v2="--v2" in sys.argv) as cluster:
        ray.init(address=cluster.address, namespace="raycelery", log_to_driver=False)
        from raycelery.client import session
        from tests.elastic import jobs

        seen: list[tuple[float, int]] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                seen.append((time.time(), len(cluster.nodes())))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        began = time.time()
        runs = group(jobs.work.s(SECONDS) for _ in range(TASKS)).apply_async().get(timeout=600)
        ended = max(run["ended"] for run in runs)
        while seen[-1][1]:
            time.sleep(0.1)
        gone = time.time()
        over.set()
        watcher.join()
        came = [
            next((at for at, count in seen if count >= number), float("nan")) - began for number in range(1, NODES + 1)
        ]
        work = TASKS * SECONDS / 2
        used = sum((after - at) * count for (at, count), (after, _) in itertools.pairwise(seen))
        rows = {
            "first node came after": f"{came[0]:.1f} s",
            "fourth node came after": f"{came[-1]:.1f} s",
            "all tasks done after": f"{ended - began:.1f} s",
            "of that after the first node had come": f"{ended - began - came[0]:.1f} s",
            "least possible on four nodes": f"{work / NODES:.1f} s",
            "all nodes gone after the last task": f"{gone - ended:.1f} s",
            "node-seconds": f"{used:.0f} s",
            "least possible, with the idle time of nodes": f"{work + NODES * IDLE_SECONDS:.0f} s",
        }
        print("| | |\n| --- | --- |")
        for what, amount in rows.items():
            print(f"| {what} | {amount} |")
        session.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
