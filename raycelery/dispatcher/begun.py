"""Asks what executors that have ended, or are to end, had begun: the files that they wrote are on their nodes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycelery.executor import begun
from raycelery.reasons import reason_of
from raycelery.scheduler.events import UNKNOWN

logger = logging.getLogger(__name__)

#: Seconds that another node has to answer. Its tasks wait meanwhile, and fail after that.
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Place:
    """Where an executor's :class:`raycelery.executor.begun.BegunFile` is.

    Arguments:
        node: Ray's id of the node.
        path: of the file.
    """

    node: str
    path: str


async def last_begun(places: Iterable[Place]) -> dict[Place, int]:
    """Return the number of the message that each executor began last; ``UNKNOWN`` where nobody can tell.

    Executors that still run are ended first, so that the answer stays true.
    """
    by_node: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        # A file of another cluster's node may be on this machine; its name is its own.
        by_node["" if os.path.exists(place.path) else place.node].append(place)
    answers = await asyncio.gather(*(on_node(node, found) for node, found in by_node.items()))
    return {place: last for answer in answers for place, last in answer.items()}


async def on_node(node: str, places: list[Place]) -> dict[Place, int]:
    """Return the same for executors of one node; "": of this machine."""
    paths = [place.path for place in places]
    found: list[int | None] = [None] * len(paths)
    if not node:
        found = await asyncio.to_thread(begun.all_last_begun, paths)
    elif any(one["NodeID"] == node and one["Alive"] for one in ray.nodes()):
        ask = ray.remote(begun.all_last_begun).options(
            num_cpus=0, max_retries=3, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        )
        try:
            found = await asyncio.wait_for(ask.remote(paths), ANSWER_SECONDS)
        except (ray.exceptions.RayError, asyncio.TimeoutError) as exc:
            logger.error("the node %s does not tell what its executors had begun: %s", node, reason_of(exc))
    return {place: UNKNOWN if last is None else last for place, last in zip(places, found, strict=True)}


def remove(place: Place) -> None:
    """Remove a file that is needed no more; on other nodes it is removed by executors that start there later."""
    with contextlib.suppress(OSError):
        os.unlink(place.path)
