"""Loads the application in an executor: imports it, or takes it and its tasks by value."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import celery
from celery import signals
from celery.app.utils import find_app
from kombu.utils.imports import symbol_by_name

from raycelery.app import carried, codecs
from raycelery.app.settings import give_defaults
from raycelery.app.spec import AppSpec, serve
from raycelery.errors import AppLoadError, TaskNotRegistered
from raycelery.executor.hostname import HOSTNAME
from raycelery.executor.load_errors import describe, told
from raycelery.executor.sources import Sources
from raycelery.names import NAME_VARIABLE
from raycelery.protocol.definitions import DefineCode
from raycelery.protocol.messages import CodeKey
from raycelery.serialization import references, shared_globals, values

logger = logging.getLogger(__name__)

#: Variables of a runtime environment that are for Ray itself.
_RAYS_OWN = ("RAY_", "__RAY")
_FOLDER = "the caller's folder"
#: By key of the definition: Ray has a process run several messages of ``executor="function"`` one after the other.
_loaded: dict[str, celery.Celery] = {}
_sources: Sources | None = None


def fit_for(key: str) -> bool:
    """Return whether this process can load a definition: it has imported no other, and that as its files are now."""
    return not _loaded or (key in _loaded and (_sources is None or _sources.changed() is None))


def load(spec: AppSpec, env: Mapping[str, Any]) -> celery.Celery:
    """Return the application that ``spec`` describes, with its tasks registered.

    Arguments:
        spec: the description.
        env: the runtime environment that this executor was started for.

    Raises:
        AppLoadError: a module cannot be imported or has no such application.
    """
    global _sources
    serve(spec)
    if spec.key in _loaded:
        app = _loaded[spec.key]
        references.adopt(app)
        return app
    shared_globals.share()
    # Ray may have given this process to another application before.
    os.environ.pop(NAME_VARIABLE, None)
    _see_what_the_caller_sees(spec, env)
    with told(title(spec), spec.cwd):
        if spec.codecs:
            codecs.register(values.loads(spec.codecs))
        app = _by_value(spec.value) if spec.value is not None else _by_import(spec)
        app.dispatcher = spec.dispatcher
        references.adopt(app)
        app.set_current()
        app.set_default()
        if spec.state:
            carried.restore(app, values.loads(spec.state))
        give_defaults(app)
        app.conf.update(spec.settings)
        _choose_backend(app)
        app.carried = values.loads(spec.receivers) if spec.receivers else []
        _connect(app)
        app.loader.init_worker()
        for name in spec.imports:
            _import_tasks(name, spec)
        app.finalize(auto=True)
        _connect(app)
    _loaded[spec.key] = app
    _sources = Sources()
    return app


def _see_what_the_caller_sees(spec: AppSpec, env: Mapping[str, Any]) -> None:
    """Let this process find the modules, files and variables that the caller finds, in the caller's order.

    Ray gives executors the folders, the runtime environment and its variables of whoever started the dispatcher, which
    may have been another project, or another release of this one.
    """
    import ray

    inherited = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    variables = env.get("env_vars") or {}
    for name in inherited.keys() - variables.keys():
        if not name.startswith(_RAYS_OWN):
            os.environ.pop(name, None)
    os.environ.update({name: value for name, value in spec.environ if name not in variables})
    packaged = bool(env.get("working_dir") or env.get("py_modules"))
    if os.path.isdir(spec.cwd) and not env.get("working_dir"):
        with contextlib.suppress(OSError):
            os.chdir(spec.cwd)
    there = [entry for entry in spec.path if os.path.exists(entry)]
    foreign = _folders_of_the_dispatchers_job() - set(spec.path)
    sys.path[:] = [entry for entry in sys.path if entry not in foreign and (packaged or not _is_unpacked(entry))]
    if not packaged and "PYTHONPATH" not in variables:
        own = [entry for entry in spec.path[: spec.leading] if entry in there]
        sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own)]
    sys.path.extend(entry for entry in there if entry not in sys.path)
    importlib.invalidate_caches()


def _folders_of_the_dispatchers_job() -> set[str]:
    """Return the folders that Ray searches for the sake of the program that started the dispatcher."""
    from ray._private.worker import global_worker

    listed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return set(global_worker.core_worker.get_job_config().py_driver_sys_path) - set(listed)


def _is_unpacked(entry: str) -> bool:
    """Return whether a folder is one that Ray has unpacked for a runtime environment's working_dir or py_modules."""
    return "working_dir_files" in entry or "py_modules_files" in entry


def _by_import(spec: AppSpec) -> celery.Celery:
    assert spec.module is not None
    if spec.attribute is None:
        return _by_name(spec.module)
    module = importlib.import_module(spec.module)
    app = getattr(module, spec.attribute, None)
    if not isinstance(app, celery.Celery):
        raise AppLoadError(f"in the executors, the module {spec.module!r} has no Celery application {spec.attribute!r}")
    return app


def _by_name(name: str) -> celery.Celery:
    """Find the application as ``celery -A`` does, or have a factory make it."""
    found = symbol_by_name(name.removesuffix("()"))() if name.endswith("()") else find_app(name)
    extensions = getattr(found, "extensions", None)
    if isinstance(extensions, dict):  # a Flask application's
        found = extensions.get("celery", found)
    if not isinstance(found, celery.Celery):
        raise AppLoadError(f"ray_app={name!r} leads to {found!r}, which is not a Celery application")
    return found


def _choose_backend(app: celery.Celery) -> None:
    """Have results that go to Redis go there in one round trip."""
    ours = dict.fromkeys(("redis", "rediss"), "raycelery.executor.redis_results:RedisBackend")
    app.loader.override_backends = {**ours, **app.loader.override_backends}


def _by_value(value: bytes) -> celery.Celery:
    cls, arguments = values.loads(value)
    app: celery.Celery = cls(**arguments)
    return app


def _connect(app: Any, task: str | None = None) -> None:
    """Connect the signal handlers that were carried along: those of one task, or all whose senders are there.

    To connect one again is harmless.
    """
    for name, receiver, sender in app.carried:
        if sender == ():
            sender = app
        elif isinstance(sender, tuple):
            if sender[0] not in app._tasks or task not in (None, sender[0]):
                continue
            sender = app._tasks[sender[0]]
        elif task is not None:
            continue
        getattr(signals, name).connect(receiver, sender=sender, weak=False)


def _import_tasks(name: str, spec: AppSpec) -> None:
    try:
        importlib.import_module(name)
    except ImportError as exc:
        # Its tasks may not be among those that are called; one that is fails with its own name.
        logger.warning("%s", describe(f"the module {name!r}", spec.cwd, exc))


def title(spec: AppSpec) -> str:
    """Return what messages call an application."""
    return ":".join(filter(None, (spec.module, spec.attribute))) if spec.module else f"the application {spec.name!r}"


class Tasks:
    """Finds the task a message names, loading its code where needed.

    Arguments:
        app: the loaded application.
    """

    def __init__(self, app: celery.Celery) -> None:
        self._app = app
        self._codes: dict[str, bytes] = {}
        self._loaded: dict[str, str] = {}
        self._time_limits: dict[str, tuple[float | None, float | None]] = {}

    def set_time_limits(self, limits: dict[str, tuple[float | None, float | None]]) -> None:
        """Set soft and hard time limits by task, as remote control wishes.

        Arguments:
            limits: seconds; all that were ever set.
        """
        self._time_limits = limits
        for name in limits.keys() & self._app._tasks.keys():
            self._limit(self._app._tasks[name])

    def _limit(self, task: Any) -> None:
        if task.name in self._time_limits:
            task.soft_time_limit, task.time_limit = self._time_limits[task.name]
            return
        # Before 5.7 Celery's worker hands these settings to its pool, and tasks do not have them.
        conf = self._app.conf
        task.soft_time_limit = task.soft_time_limit or conf.task_soft_time_limit
        task.time_limit = task.time_limit or conf.task_time_limit

    def learn(self, codes: list[DefineCode]) -> None:
        """Register tasks that travel by value; they may be called from one another before their own messages come.

        Arguments:
            codes: of each task.
        """
        for code in codes:
            self._codes[code.key] = code.code
            if not code.prefer_import or code.name not in self._app._tasks:
                try:
                    self._load(code.name, code.key)
                except AppLoadError as exc:  # a call of it will fail with that
                    logger.warning("%s", exc)
        self._announce()

    def _announce(self) -> None:
        if getattr(self._app, "hooks", None):
            carried.announce(self._app)

    def find(self, name: str, module: str | None, code: CodeKey | None) -> Any:
        """Return the task.

        Arguments:
            name: the task's.
            module: the one the caller has it from.
            code: key of its code where it travels by value, and whether an import is to be preferred.

        Raises:
            TaskNotRegistered: nothing brought a task of that name.
            AppLoadError: its module or its code cannot be loaded.
        """
        tasks = self._app._tasks
        self._announce()
        if code is not None and not code.prefer_import:
            if self._loaded.get(name) != code.key:
                self._load(name, code.key)
        elif name not in tasks:
            if module is not None:
                self._import(name, module, needed=code is None)
            if code is not None and name not in tasks:
                self._load(name, code.key)
        found = tasks.get(name)
        if found is None:
            raise TaskNotRegistered(name, self._where_to_look(name))
        if found.__trace__ is None:
            from raycelery.executor.tracing import tracer_of

            with _no_success_lines():
                found.__trace__ = tracer_of(self._app, found, HOSTNAME)
            self._limit(found)
        return found

    def _import(self, name: str, module: str, needed: bool) -> None:
        with told(f"the module {module!r} of the task {name!r}", _FOLDER):
            try:
                importlib.import_module(module)
            except ImportError:
                if needed:
                    raise

    def _where_to_look(self, name: str) -> str:
        advice = (
            "did you remember to import its module? Name it in the application's `imports` or `include`, or have "
            "autodiscover_tasks find it; with relative imports, give the task a name="
        )
        known = [task for task in self._app._tasks if not task.startswith("celery.")]
        last = name.rpartition(".")[2]
        near = [task for task in known if task.rpartition(".")[2] == last]
        near += [task for task in difflib.get_close_matches(name, known) if task not in near]
        return f"{advice}. Did you mean {' or '.join(map(repr, near[:3]))}?" if near else advice

    def _load(self, name: str, key: str) -> None:
        with told(f"the code of the task {name!r}", _FOLDER):
            kind, made_of, options, since = values.loads(self._codes[key])
            self._app._tasks.pop(name, None)
            if kind == "function":
                task = self._app._task_from_fun(made_of, **options)
            else:
                task = self._app.register_task(made_of())
            for attribute, value in since.items():
                setattr(task, attribute, value)
        task.__trace__ = None
        _connect(self._app, name)
        self._loaded[name] = key
        if hasattr(self._app, "producer"):  # else it is a plain Celery application, of a bridge
            self._app.producer.descriptions.adopt_code(task, key, self._codes[key])


@contextlib.contextmanager
def _no_success_lines() -> Iterator[None]:
    """Have tracers made that log no line for each success, which costs more than many a task; "DEBUG" has them.

    Celery's tracers look at the level once; what they say of retries and failures is logged as ever.
    """
    tracing = logging.getLogger("celery.app.trace")
    before = tracing.level
    if not tracing.isEnabledFor(logging.DEBUG):
        tracing.setLevel(logging.WARNING)
    try:
        yield
    finally:
        tracing.setLevel(before)
