"""What the dispatcher is told of an application and its tasks before it is sent their calls."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from celery.utils.time import rate

from raycelery import names
from raycelery.app import environment, left_out, spec
from raycelery.app.consuming import request_class
from raycelery.app.options import options_of
from raycelery.errors import ArgumentError
from raycelery.protocol.definitions import (
    DefineApplication,
    DefineCode,
    DefineLane,
    DefineLimit,
    DefineRate,
    Definition,
)
from raycelery.protocol.messages import CodeKey
from raycelery.scheduler.model import Lane, lane_of

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: Tasks, with what their calls ask for, whose lanes are remembered.
_MOST_KNOWN = 10_000


#: What identifies a definition to :meth:`Client.define`, and the definition.
Defined = tuple[Hashable, Definition]


class Described:
    """What publishing needs to know of one task in one queue, worked out once."""

    __slots__ = ("awaited", "code", "definitions", "hard_limit", "lane", "module")

    def __init__(self, lane: str, definitions: list[Defined]) -> None:
        self.lane = lane
        self.definitions = definitions
        self.module: str | None = None
        self.code: CodeKey | None = None
        self.hard_limit: float | None = None
        self.awaited = True


class Descriptions:
    """Describes an application and its tasks, each once until something of it changes.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        #: By task, queue, and what a call asks for.
        self._tasks: dict[tuple[str, str, Any], Described] = {}
        self._codes: dict[int, tuple[Any, str, bytes]] = {}
        self._spec: spec.AppSpec | None = None
        self._adopted = False
        self._receivers: list[spec.Receiver] | None = None

    def of(self, name: str, queue: str, overrides: Mapping[str, Any]) -> Described:
        """Return what publishing needs to know of a task.

        Arguments:
            name: the task's.
            queue: that it is sent to.
            overrides: what the call asks for.

        Raises:
            OptionError: an option is malformed.
        """
        known = self._tasks.get((name, queue, _fixed(overrides)))
        return known if known is not None else self._describe(name, queue, overrides)

    def described(self) -> spec.AppSpec:
        """Return the description by which executors load the application."""
        if self._spec is None:
            self.app.finalize(auto=True)
            self.app.session  # noqa: B018  # what is described depends on the Ray job
            if self._receivers is None:
                left_out.warn(self.app)
            self._receivers = spec.receivers(self.app)
            self._spec = spec.spec_of(self.app, self.app.home, names.dispatcher_name(self.app))
        return self._spec

    def adopt(self, app_spec: spec.AppSpec) -> None:
        """Publish under the description that this executor was given, so that subtasks share its lanes.

        Arguments:
            app_spec: the description.
        """
        self._spec, self._adopted = app_spec, True
        self.app.dispatcher = app_spec.dispatcher

    def adopt_code(self, task: Any, key: str, code: bytes) -> None:
        """Publish ``task`` with the code that this executor was given for it."""
        self._codes[id(task)] = (task, key, code)

    def app_definition(self) -> Defined:
        """Return the definition of the application, for :meth:`Client.define`."""
        app_spec = self.described()
        return ("app", app_spec.key), DefineApplication(app_spec.key, pickle.dumps(app_spec), app_spec.env or "")

    def _describe(self, name: str, queue: str, overrides: Mapping[str, Any]) -> Described:
        app = self.app
        app_spec = self.described()
        task = app._tasks.get(name)
        if task is not None:
            self._check(task)
        options = self._options(task, queue, overrides)
        lane = _lane(options, app_spec.key)
        definitions: list[Defined] = [
            self.app_definition(),
            (
                ("lane", lane.key),
                DefineLane(lane.key, dict(lane.request), lane.app, lane.env, lane.one_shot, lane.driver),
            ),
        ]
        for limit, maximum in self._limits(task, name, queue):
            definitions.append((("limit", limit, maximum), DefineLimit(limit, maximum)))
        per_second = rate(task.rate_limit) if task is not None and task.rate_limit else None
        if per_second:
            definitions.append((("rate", name, per_second), DefineRate(name, per_second)))
        info = Described(lane.key, definitions)
        if task is not None:
            info.hard_limit = task.time_limit or self.app.conf.task_time_limit  # in tasks themselves since Celery 5.7
            module = task.__module__
            info.module = None if module in ("__main__", None) else module
            if spec.needs_value(task, app_spec.value is not None):
                info.code = CodeKey(self._code(task)[0], spec.by_import_first(task))
                definitions += self._codes_by_value(app_spec)
        fixed = _fixed(overrides)
        if fixed is not None:
            if len(self._tasks) >= _MOST_KNOWN:
                self._tasks.clear()
            self._tasks[name, queue, fixed] = info
        return info

    def _check(self, task: Any) -> None:
        """Refuse a task that direct mode cannot run."""
        request_class(task)

    def _codes_by_value(self, app_spec: spec.AppSpec) -> list[Defined]:
        """Return the definitions of all tasks that travel by value: one may call another."""
        definitions: list[Defined] = []
        for name, task in list(self.app._tasks.items()):
            if not spec.needs_value(task, app_spec.value is not None):
                continue
            try:
                key, code = self._code(task)
            except ArgumentError as exc:
                logger.debug("not carried along: %s", exc)
                continue
            definition = DefineCode(app_spec.key, name, key, code, spec.by_import_first(task))
            definitions.append((("code", app_spec.key, name, key), definition))
        return definitions

    def _code(self, task: Any) -> tuple[str, bytes]:
        known = self._codes.get(id(task))
        if known is None or known[0] is not task:
            code = spec.code_of(task, self.app.recipes.get(task.name))
            known = (task, hashlib.sha256(code).hexdigest()[:16], code)
            self._codes[id(task)] = known
        return known[1], known[2]

    def _options(self, task: Any, queue: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        conf = self.app.conf
        base = environment.merged(json.loads(self.described().env or "{}"), conf.ray_runtime_env)
        options: dict[str, Any] = {"num_cpus": conf.ray_num_cpus, "runtime_env": base}
        own = options_of(task) if task is not None else {}
        for layer in (conf.ray_queues.get(queue) or {}, own, overrides):
            env = environment.merged(options["runtime_env"], layer.get("runtime_env"))
            options.update({key: value for key, value in layer.items() if value is not None}, runtime_env=env)
        if options["runtime_env"]:
            connected = self.app.session.can_use_ray
            options["runtime_env"] = environment.packaged(options["runtime_env"], connected=connected)
        return options

    def _limits(self, task: Any, name: str, queue: str) -> list[tuple[str, int]]:
        conf = self.app.conf
        limits = []
        if conf.worker_concurrency:
            limits.append(("app", int(conf.worker_concurrency)))
        of_queue = (conf.ray_queues.get(queue) or {}).get("max_concurrency")
        if of_queue:
            limits.append((f"queue:{queue}", int(of_queue)))
        of_task = getattr(task, "max_concurrency", None)
        if of_task:
            limits.append((f"task:{name}", int(of_task)))
        return limits

    def reconsider(self) -> None:
        """Work out anew what publishing needs to know: the application or its configuration was changed."""
        self._tasks.clear()
        if not self._adopted and self._spec is not None and self._spec.value is not None:
            self._spec = None

    def forget(self) -> None:
        """Work out anew what publishing needs to know: there is a new task, which those known may call."""
        self._tasks.clear()
        if not self._adopted and self._receivers is not None and spec.receivers(self.app) != self._receivers:
            self._spec = None


def _fixed(overrides: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what identifies a call's options, or None where it is not known before they are worked out."""
    if not overrides:
        return ()
    if "runtime_env" in overrides:
        return None  # what is in its folders may have changed
    return tuple((key, tuple(v.items()) if isinstance(v, Mapping) else v) for key, v in sorted(overrides.items()))


def _lane(options: Mapping[str, Any], app_key: str) -> Lane:
    request: dict[str, float] = {"CPU": float(options.get("num_cpus") or 0)}
    if options.get("num_gpus"):
        request["GPU"] = float(options["num_gpus"])
    if options.get("memory"):
        request["memory"] = float(options["memory"])
    request.update({key: float(value) for key, value in (options.get("resources") or {}).items() if value})
    env = options.get("runtime_env")
    env_text = json.dumps(dict(env), sort_keys=True) if env else ""
    kind = options.get("executor")
    asked = {key: value for key, value in request.items() if value}
    return lane_of(asked, app_key, env_text, kind == "function", kind == "driver")
