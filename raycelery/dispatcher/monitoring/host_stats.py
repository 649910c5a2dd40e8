"""CPU, memory and load of the cluster's machines, looked at while somebody watches."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycelery.reasons import reason_of

logger = logging.getLogger(__name__)

#: Seconds that a node has to answer.
PATIENCE_SECONDS = 30.0


def sample() -> dict[str, Any]:
    """Return what this machine does: load averages, memory in bytes, CPU seconds since it was started."""
    memory = psutil.virtual_memory()
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return {
        "loadavg": [round(load, 2) for load in os.getloadavg()],
        "cpu_seconds": (sum(times[:8]) - idle, sum(times[:8])),
        "memory_used": memory.total - memory.available,
        "memory_total": memory.total,
    }


class HostStats:
    """What was last seen of each machine, by Ray's node id.

    Arguments:
        here: the dispatcher's own node; others are asked by a small Ray task.
    """

    def __init__(self, here: str) -> None:
        self._here = here
        self._seen: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._sample = ray.remote(num_cpus=0, max_retries=0)(sample)

    def get(self, node: str) -> dict[str, Any]:
        """Return what is known of a node; nothing before the first look."""
        return self._seen.get(node, {})

    def look(self, nodes: Iterable[str]) -> None:
        """Look at some nodes; answers come in a while."""
        for node in set(nodes) - self._asked.keys():
            if node == self._here:
                self._note(node, sample())
            else:
                self._asked[node] = asyncio.get_running_loop().create_task(self._ask(node))

    async def _ask(self, node: str) -> None:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        try:
            answer = self._sample.options(scheduling_strategy=where, name="raycelery: look at the machine").remote()
            self._note(node, await asyncio.wait_for(asyncio.wrap_future(answer.future()), PATIENCE_SECONDS))
        except (ray.exceptions.RayError, asyncio.TimeoutError) as exc:
            logger.debug("node %s was not looked at: %s", node, reason_of(exc))
            self._seen.pop(node, None)
        finally:
            del self._asked[node]

    def _note(self, node: str, seen: dict[str, Any]) -> None:
        busy, total = seen.pop("cpu_seconds")
        before = self._seen.get(node, {}).get("_cpu", (0.0, 0.0))
        share = (busy - before[0]) / max(0.001, total - before[1])
        self._seen[node] = {**seen, "cpu_percent": round(100 * share, 1), "_cpu": (busy, total)}
