"""What ``raycelery status`` and ``raycelery top`` show, as the dispatcher sees it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from raycelery.dispatcher import steady
from raycelery.masking import masked
from raycelery.protocol import messages
from raycelery.scheduler.nodes import UNIT

if TYPE_CHECKING:
    from raycelery.dispatcher.monitoring.control_plane import ControlPlane
    from raycelery.dispatcher.queries import Queries
    from raycelery.scheduler.view import View

#: Running tasks that are listed, the longest running first.
MOST_RUNNING = 200
#: Groups of failures that are listed, the latest first.
MOST_FAILURES = 20


def overview(name: str, queries: Queries, plane: ControlPlane) -> dict[str, Any]:
    """Return plain data about everything: times in seconds since the epoch, memory in bytes.

    Arguments:
        name: the application's.
        queries: reads its dispatcher's state.
        plane: knows the nodes, and is told that somebody looks.
    """
    plane.watch()
    scheduler = queries.view
    everything = queries.stats()
    return {
        "application": name,
        "time": steady.wall(steady.now()),
        "since": steady.wall(queries.since),
        "pending": everything["pending"],
        "scheduled": everything["scheduled"],
        "outcomes": everything["outcomes"],
        "results": everything["results"],
        "result_bytes": everything["result_bytes"],
        "dispatcher": {"pid": everything["pid"], "memory": everything["rss"], "node": plane.name_of(plane.here)},
        "limits": {name: limit.maximum for name, limit in scheduler.limits.items() if limit.maximum is not None},
        "waits_for_nodes": scheduler.growth,
        "waits_in_ray": scheduler.ray_work(steady.now()),
        "leased_from": dict(scheduler.leased_from()),
        "leased_to": dict(scheduler.leased_to()),
        "rates": {task: rate.per_second for task, rate in scheduler.rates.items()},
        "nodes": _nodes(scheduler, plane),
        "queues": _queues(scheduler),
        "lanes": _lanes(scheduler),
        "failures": queries.outcomes.latest(MOST_FAILURES),
        "running": _running(queries, plane),
    }


def _nodes(scheduler: View, plane: ControlPlane) -> list[dict[str, Any]]:
    kinds: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    used: Counter[str | None] = Counter()
    for executor in scheduler.executors.values():
        kinds[executor.node][executor.condition()] += 1
        if not (executor.blocked or executor.resting or executor.paused):
            used[executor.node] += executor.lane.request.get("CPU", 0)
    found = []
    for node, hostname in plane.nodes().items():
        known = scheduler.nodes.get(node)
        total = known.total if known is not None else {}
        machine = {key: value for key, value in plane.host_stats.get(node).items() if not key.startswith("_")}
        found.append(
            {
                "id": node,
                "hostname": hostname,
                "cpus": total.get("CPU", 0) / UNIT,
                "cpus_held": used[node] / UNIT,
                "draining": known is not None and known.draining,
                "gpus": total.get("GPU", 0) / UNIT,
                "executors": dict(kinds[node]),
                **machine,
            }
        )
    return found


def _queues(scheduler: View) -> list[dict[str, Any]]:
    names = {limit.removeprefix("queue:") for limit in scheduler.limits if limit.startswith("queue:")}
    running = {name: scheduler.limits[f"queue:{name}"].used for name in names}
    return [
        {
            "name": name,
            "waiting": scheduler.waiting(name),
            "running": running[name],
            "limit": scheduler.limits[f"queue:{name}"].maximum,
        }
        for name in sorted(names)
    ]


def _lanes(scheduler: View) -> list[dict[str, Any]]:
    found = []
    for lane in scheduler.lanes.values():
        executors = [scheduler.executors[executor_id] for executor_id in lane.executors]
        found.append(
            {
                "key": lane.key,
                "request": dict(lane.lane.request),
                "runtime_env": masked(json.loads(lane.lane.env)) if lane.lane.env else {},
                "one_shot": lane.lane.one_shot,
                "driver": lane.lane.driver,
                "bookkeeping": lane.for_settlement,
                "waiting": lane.waiting,
                "executors": dict(Counter(executor.condition() for executor in executors)),
            }
        )
    return sorted(found, key=lambda lane: (lane["bookkeeping"], -lane["waiting"], lane["key"]))


def _running(queries: Queries, plane: ControlPlane) -> list[dict[str, Any]]:
    scheduler = queries.view
    found = []
    for message in queries.messages("running"):
        headers = messages.opened(message["payload"]).headers
        executor = scheduler.executors[message["executor"]]
        found.append(
            {
                "id": message["id"],
                "task": message["task"],
                "queue": message["queue"],
                "args": masked(headers.argsrepr),
                "kwargs": masked(headers.kwargsrepr),
                "since": steady.wall(message["since"]),
                "pid": message["pid"],
                "node": plane.name_of(executor.node or ""),
                "waits_for_subtasks": executor.blocked,
            }
        )
    return sorted(found, key=lambda one: float(one["since"]))[:MOST_RUNNING]
