"""Starts and ends executors: Ray tasks, each in a process of its own, or of one message for ``executor="function"``.

Executors that stay up are tasks that do not end, rather than actors: Ray takes back the CPUs of a task that waits in
``ray.get`` or ``ray.wait``, and leaves an actor its own, so that what it waits for may never start. See
https://docs.ray.io/en/latest/ray-core/tasks/nested-tasks.html#yielding-resources-while-blocked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import ray
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

from raycelery.protocol.definitions import DefineApplication
from raycelery.protocol.limits import Limits
from raycelery.scheduler.instructions import Start
from raycelery.scheduler.lanes import SETTLEMENT
from raycelery.scheduler.model import Lane, in_words


@dataclass(frozen=True)
class Actors:
    """What a dispatcher starts; given to it by :mod:`raycelery.actors`.

    Arguments:
        find_dispatcher: returns the handle of another application's dispatcher, for its name and limits.
        run: the function of executors, whose last argument says whether it ends after one message.
    """

    find_dispatcher: Callable[[str, Limits], Any]
    run: Callable[..., str]


@dataclass(slots=True)
class Handle:
    """A started executor: ``ended`` resolves to why it ended, or fails with Ray's reason for its death.

    ``request`` is what Ray was asked for; ``late`` is when Ray should have started it by, in seconds since the epoch.
    """

    ended: Any
    request: Mapping[str, float] = field(default_factory=dict)
    #: What a driver's Ray work may use: a placement group, which goes with it.
    reserved: Any = None

    def kill(self) -> None:
        """End it at once."""
        ray.cancel(self.ended, force=True)

    def clean_up(self) -> None:
        """Give back what it leaves, once it has ended."""
        if self.reserved is not None:
            remove_placement_group(self.reserved)


def _title(lane: Lane) -> str:
    if lane.key.startswith(SETTLEMENT):
        return "bookkeeping"
    return in_words(dict(sorted(lane.request.items()))) + (
        ", function" if lane.one_shot else ", driver" if lane.driver else ""
    )


def start(
    actors: Actors, name: str, instruction: Start, app: DefineApplication, endpoint: tuple[str, int, bytes]
) -> Handle:
    """Start the executor that the scheduler decided on.

    Arguments:
        actors: what there is to be started.
        name: of the application.
        instruction: lane, node, and whether Ray is to be asked for its CPUs.
        app: how it is loaded.
        endpoint: host, port and secret of the dispatcher.
    """
    lane = instruction.lane
    request = {**lane.request, "CPU": 0} if instruction.without_cpus else dict(lane.request)
    options: dict[str, Any] = {"num_cpus": request.get("CPU", 0)}
    if lane.request.get("GPU"):
        options["num_gpus"] = lane.request["GPU"]
    if lane.request.get("memory"):
        options["memory"] = lane.request["memory"]
    custom = {k: v for k, v in lane.request.items() if k not in ("CPU", "GPU", "memory")}
    if custom:
        options["resources"] = custom
    # Bookkeeping is done in the environment that the application has without its tasks' own.
    env_text = app.env if lane.key.startswith(SETTLEMENT) else lane.env
    env = json.loads(env_text or "{}")
    if env:
        options["runtime_env"] = env
    if instruction.node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(
            instruction.node, soft=not instruction.without_cpus
        )
    elif instruction.not_on and (label := _node_label()) is not None:
        options["scheduling_strategy"] = NodeLabelSchedulingStrategy(hard={label: NotIn(*instruction.not_on)})
    reserved = None
    if lane.driver and lane.request and not instruction.without_cpus:
        # The process itself uses nothing of it; all that it starts is placed there, in Ray's own way.
        reserved = placement_group([dict(lane.request)], strategy="STRICT_PACK", _soft_target_node_id=instruction.node)
        options = {
            "num_cpus": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(reserved, placement_group_capture_child_tasks=True),
        } | ({"runtime_env": env} if env else {})
    title = f"{name} [{_title(lane)}] #{instruction.executor_id}"
    arguments = (
        instruction.executor_id, title, dict(lane.request), app.spec, endpoint, lane.app, env_text, lane.one_shot
    )  # fmt: skip
    function = _remote(actors.run, lane.one_shot).options(name=title, max_retries=0, **options)
    return Handle(function.remote(*arguments), request, reserved)


@lru_cache(maxsize=2)
def _remote(function: Callable[..., str], reused: bool) -> Any:
    """Return a Ray remote function whose process Ray may use again; one for all, as Ray keeps each for good."""
    return ray.remote(function) if reused else ray.remote(max_calls=1)(function)


@lru_cache(maxsize=1)
def _node_label() -> str | None:
    """Return the label by which Ray tells nodes apart, which is not called the same in all of its versions."""
    labels = [(name, value == node["NodeID"]) for node in ray.nodes() for name, value in node.get("Labels", {}).items()]
    return next((name for name, is_id in labels if is_id), None)


def crashed(exc: Exception) -> bool:
    """Return whether an executor's process was killed or crashed, rather than refused by Ray."""
    if isinstance(exc, (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.ActorUnschedulableError)):
        return False
    kinds = (ray.exceptions.ActorDiedError, ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
    return isinstance(exc, kinds)
