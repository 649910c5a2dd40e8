"""Applications that share a cluster: one that Ray has no room for asks the dispatchers of the others to give some up.

Ray starts what fits and lets the rest wait; it knows nothing of executors that sit idle in another application.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import ray

from raycelery.session import NAMESPACE

logger = logging.getLogger(__name__)

#: Seconds that an executor may take to start before it is taken to lack room.
PATIENCE_SECONDS = 0.5
#: Seconds until room is asked for again: what was given up takes as long to be used.
AGAIN_SECONDS = 5.0


def lacking(requests: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return what must be given up for ``requests`` to be met; empty if Ray has it free.

    Arguments:
        requests: of the executors that were asked for and have not appeared.
    """
    wanted: Counter[str] = Counter()
    for request in requests:
        wanted.update(request)
    if not wanted:
        return {}
    free = ray.available_resources()
    return {name: amount - free.get(name, 0) for name, amount in wanted.items() if amount > free.get(name, 0)}


def ask(name: str, amounts: Mapping[str, float], share: float) -> None:
    """Ask every other dispatcher of the cluster to make room.

    Arguments:
        name: of the application that asks.
        amounts: what it lacks, in Ray's units.
        share: the CPUs it has.
    """
    for actor in ray.util.list_named_actors(all_namespaces=True):
        other = actor["name"]
        if actor["namespace"] == NAMESPACE and other.startswith("raycelery:") and other != f"raycelery:{name}":
            try:
                ray.get_actor(other, namespace=NAMESPACE).make_room.remote(dict(amounts), share)
            except ValueError:
                logger.debug("%s has ended meanwhile", other)
