"""How an executor comes by the application: by import where it has a name, by value where it has none.

An app that is a module's attribute is imported. One made in ``__main__``, in a notebook cell or inside a function is
carried by value, with its configuration, and so is each of its tasks that no import would bring.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from types import FunctionType
from typing import Any

import celery
from celery import signals
from celery.app.task import Task

from raycelery.app import carried, codecs, environment
from raycelery.app.carried import LIBRARIES, is_mine
from raycelery.app.settings import DEFAULTS, is_setting
from raycelery.errors import ArgumentError
from raycelery.names import NAME_VARIABLE
from raycelery.serialization import references, values
from raycelery.serialization.references import in_main

logger = logging.getLogger(__name__)

#: Environment variables that frameworks find their settings by begin with these.
TRAVELLING = ("DJANGO_", "CELERY_", "FLASK_")
#: Where the standard library is, zipped or not.
LIBRARY = os.path.dirname(os.path.dirname(os.__file__))
#: Signals whose receivers in ``__main__`` are carried to the executors.
_EXECUTOR_SIGNALS = (
    "celeryd_init",
    "import_modules",
    "worker_init",
    "celeryd_after_setup",
    "worker_process_init",
    "worker_process_shutdown",
    "task_received",
    "task_prerun",
    "task_postrun",
    "task_success",
    "task_failure",
    "task_retry",
    "task_revoked",
    "task_internal_error",
    "task_unknown",
    "before_task_publish",
    "after_task_publish",
    "setup_logging",
    "after_setup_logger",
    "after_setup_task_logger",
)


@dataclass(frozen=True)
class AppSpec:
    """Enough to rebuild an application in another process; plain data."""

    name: str
    dispatcher: str
    module: str | None
    attribute: str | None
    value: bytes | None
    #: Handlers of Celery's signals that no import would connect: signal, handler, sender (a task's name), of each.
    receivers: bytes | None
    imports: tuple[str, ...]
    path: tuple[str, ...]
    #: How many entries of ``path`` stand before the standard library: the project's own.
    leading: int
    cwd: str
    environ: tuple[tuple[str, str], ...]
    #: The runtime environment of the caller's Ray job, as JSON: the dispatcher's is that of whoever started it.
    env: str = ""
    #: Settings that do not come with the application, as those of a bridge's command line.
    settings: tuple[tuple[str, Any], ...] = ()
    #: What was registered with kombu, and what was set on the application after it was made, where no import would
    #: bring it.
    codecs: bytes | None = None
    state: bytes | None = None

    @cached_property
    def key(self) -> str:
        """Identifies the application's definition: executors are shared only between equal ones."""
        # Not pickled: equal values may have different pickles, by which of their strings are one object.
        parts = (self.name, self.module, self.attribute, self.value, self.receivers, self.path, self.cwd)
        more = (self.environ, self.env, self.settings, self.codecs, self.state)
        return hashlib.sha256(repr((*parts, *more)).encode()).hexdigest()[:16]


#: What this executor was started with (in executors): the applications that its tasks import are found as its own is.
_served: AppSpec | None = None


def serve(spec: AppSpec) -> None:
    """Have applications described from now on as the program describes them that ``spec`` comes from (in executors)."""
    global _served
    _served = spec


def spec_of(app: celery.Celery, home: str | None, dispatcher: str) -> AppSpec:
    """Describe ``app`` for the executors, which are those of the dispatcher of that name.

    Raises:
        ArgumentError: it must travel by value and part of it cannot be pickled; the error names that.
    """
    named = app.conf.get("ray_app") or os.environ.get("RAYCELERY_APP")
    found = (named, None) if named else references.find_attribute(app, home)
    value = None
    if found is None:
        try:
            value = _by_value(app)
        except ArgumentError as exc:
            raise ArgumentError(
                f"the application {app.main!r} is not an attribute of a module that executors could import, "
                f"and {exc}: set ray_app or $RAYCELERY_APP to what 'celery -A' would be given, "
                "or to a factory such as 'shop:create_app()'"
            ) from exc
    registered = codecs.registered(value is not None)
    state = carried.state_of(app, value is not None) if hasattr(app, "made") else {}  # else it is a plain Celery
    imports = {task.__module__ for task in app._tasks.values() if not task.name.startswith("celery.")}
    served, path = _served, _search_path()
    return AppSpec(
        name=app.main or "celery",
        dispatcher=dispatcher,
        module=found[0] if found else None,
        attribute=found[1] if found else None,
        value=value,
        receivers=_pickled_receivers(app, value is not None),
        codecs=carried.dumps(registered, "kombu's {}", app) if registered else None,
        state=carried.dumps(state, f"what was set on the application {app.main!r}, {{}},", app) if state else None,
        imports=tuple(sorted(name for name in imports if not in_main(name))),
        path=path,
        leading=next((i for i, entry in enumerate(path) if entry.startswith(LIBRARY)), len(path)),
        cwd=served.cwd if served else os.getcwd(),
        environ=_environ(app.conf.get("ray_env_vars") or ()),
        env=served.env if served else json.dumps(environment.of_job(), sort_keys=True),
        settings=_kept_backend(app),
    )


def _kept_backend(app: celery.Celery) -> tuple[tuple[str, Any], ...]:
    """Return where results are kept, if not by the dispatcher: executors that cannot load the application must know."""
    url = app.conf.result_backend
    kept = app.conf.get("ray_keep_result_backend") or app.conf.get("ray_mode") == "mixed"
    if not kept or not isinstance(url, str):
        return ()
    return (("ray_keep_result_backend", True), ("result_backend", url))


def _search_path() -> tuple[str, ...]:
    """Return where this program imports from: Celery's commands look in their working directory for a moment only."""
    if _served is not None:
        return _served.path
    path = [os.path.abspath(entry) for entry in sys.path]
    cwd = os.getcwd()
    if cwd not in path and any(_is_in(cwd, module) for name, module in list(sys.modules.items()) if "." not in name):
        path.insert(0, cwd)
    return tuple(path)


def _is_in(folder: str, module: Any) -> bool:
    """Return whether a module, or package, of the top level lies in ``folder``."""
    found = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
    return any(isinstance(path, str) and os.path.dirname(path) == folder for path in list(found))


def _environ(named: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the environment variables that executors are to have; ``AWS_*`` names all that begin so."""
    patterns = (*named, NAME_VARIABLE)
    present = dict(os.environ)
    if _served is not None:
        # A node's own are not the program's.
        present = {name: value for name, value in present.items() if not name.startswith(TRAVELLING)}
        present.update(_served.environ)
    travelling = [
        (name, value)
        for name, value in present.items()
        if name.startswith(TRAVELLING) or any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    return tuple(sorted(travelling))


def _by_value(app: celery.Celery) -> bytes:
    reduced: dict[str, Any] = app.__reduce_keys__()
    reduced["config_source"] = None
    reduced["set_as_current"] = False
    reduced["changes"] = changes = _settings(app)
    try:
        inspect.signature(type(app)).bind(**reduced)
    except TypeError as exc:
        raise ArgumentError(f"its class {type(app).__qualname__} does not take Celery's own arguments ({exc})") from exc
    try:
        return values.dumps_code((type(app), reduced), app)
    except ArgumentError:
        carried.dumps(changes, "its setting {}", app)
        carried.dumps(reduced, "its argument {}", app)
        raise


def _settings(app: celery.Celery) -> dict[str, Any]:
    """Return the settings that do not come from Celery's defaults.

    Celery's reduction leaves out what add_defaults() brought; without it a by-value app would not be the same one.
    """
    conf, found = app.conf, {}
    for layer in conf.maps[:-1]:
        if layer is not DEFAULTS:
            # The main module as configuration has all its globals in it.
            main = getattr(layer, "obj", None) is sys.modules["__main__"]
            names = [name for name in layer if not str(name).startswith("__")]
            found.update({name: conf[name] for name in names if not main or is_setting(str(name), app.namespace)})
    return found


Receiver = tuple[str, Any, Any]


def receivers(app: celery.Celery) -> list[Receiver]:
    """Return the handlers of ``__main__``, and all that are functions: signal, handler and sender of each.

    A sender is None, a string, the name of a task in a tuple, or an empty tuple for the application.
    """
    senders: dict[Any, Any] = {id(task): (task.name,) for task in app._tasks.values()}
    senders[id(None)], senders[id(app)] = None, ()
    found = []
    for name in _EXECUTOR_SIGNALS:
        for (_, sender), reference in list(getattr(signals, name).receivers):
            receiver = reference() if isinstance(reference, weakref.ReferenceType) else reference
            known = isinstance(sender, str) or sender in senders
            if receiver is not None and known and (is_mine(receiver) or _is_function(receiver)):
                found.append((name, receiver, senders.get(sender, sender)))
    return found


def _is_function(receiver: Any) -> bool:
    return isinstance(receiver, FunctionType) and receiver.__module__.partition(".")[0] not in LIBRARIES


def _pickled_receivers(app: celery.Celery, app_by_value: bool) -> bytes | None:
    kept = []
    for name, receiver, sender in receivers(app):
        mine = is_mine(receiver)
        if not mine and not app_by_value:
            continue  # its module connects it again
        try:
            values.dumps_code(receiver, app)
        except ArgumentError as exc:
            if mine:
                raise ArgumentError(f"the handler {receiver.__qualname__!r} of the signal {name!r} {exc}") from exc
            logger.debug("not connected in executors: %s", exc)
        else:
            kept.append((name, receiver, sender))
    return values.dumps_code(kept, app) if kept else None


def needs_value(task: Task, app_by_value: bool) -> bool:
    """Return whether no import in an executor would register ``task``."""
    if task.name.startswith("celery."):
        return False
    fun = getattr(task, "_decorated_fun", None) or type(task)
    return app_by_value or in_main(getattr(fun, "__module__", None)) or "<locals>" in getattr(fun, "__qualname__", "")


def by_import_first(task: Task) -> bool:
    """Return whether an executor should try the task's module before its pickled code."""
    fun = getattr(task, "_decorated_fun", None) or type(task)
    return not in_main(getattr(fun, "__module__", None)) and "<locals>" not in getattr(fun, "__qualname__", "")


def code_of(task: Task, recipe: tuple[Any, dict[str, Any]] | None) -> bytes:
    """Pickle the code of a task: its function and options, or its class; and what was set on it since.

    Raises:
        ArgumentError: it refers to something that cannot be pickled.
    """
    app = task.app
    since = carried.set_on_task(task, function=recipe is not None)
    try:
        return values.dumps_code((*(("function", *recipe) if recipe else ("class", type(task), {})), since), app)
    except ArgumentError as exc:
        carried.dumps(since, f"the attribute {{}} of the task {task.name!r}", app)
        raise ArgumentError(
            f"the task {task.name!r} is not importable by the executors and {exc}: move it to a module, "
            "or make what it refers to inside the task"
        ) from exc
