"""The ``ray_*`` settings and the per-task options: their defaults, and the check that refuses a wrong one by name."""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery.app.defaults import _OLD_SETTING_KEYS, SETTING_KEYS

from raycelery.app import environment
from raycelery.cluster import address
from raycelery.errors import OptionError

#: Celery's names for pickle.
_PICKLE = frozenset({"pickle", "application/x-python-serialize"})


class Unchosen(str):
    """The name of a serializer that nobody chose: values travel as Ray carries them, which is any picklable one."""


def travels_as_is(serializer: str | None, accepted: Iterable[str] | None) -> bool:
    """Return whether values travel as Ray carries them: where no serializer was chosen, or pickle.

    Arguments:
        serializer: the serializer's name; None is none.
        accepted: names and content types that the receiver accepts. Pickle must be among them, as in Celery.
    """
    if type(serializer) is Unchosen:
        return True
    return serializer in _PICKLE and not _PICKLE.isdisjoint(accepted or ())


#: Every setting with its default, written like any of Celery's (``app.conf.ray_address``, ``CELERY_RAY_ADDRESS``...).
DEFAULTS: dict[str, Any] = {
    # "direct": no broker, messages go to the dispatcher; "bridge": a real broker is kept.
    "ray_mode": "direct",
    # Address of a Ray cluster: "host:6379"; "auto": the cluster on this machine; "local": a Ray inside this process;
    # None: $RAY_ADDRESS, or else as "local".
    "ray_address": None,
    # Further arguments for ``ray.init``; those that describe a Ray to start (``num_cpus``...) count if one is.
    "ray_init": {},
    # Where executors import the application from, if not from the module that made it: as ``celery -A`` takes it, or
    # "shop:create_app()"; None: $RAYCELERY_APP, or else found automatically.
    "ray_app": None,
    # Further environment variables of the caller that executors get: ["MY_DB_URL", "AWS_*"].
    "ray_env_vars": (),
    # Name of the application's dispatcher; None: the app's main name.
    "ray_app_name": None,
    # True: results stay in ``result_backend``; False: they are kept by the dispatcher.
    "ray_keep_result_backend": False,
    # Defaults per queue: {"forecasts": {"num_cpus": 2, "max_concurrency": 8}}.
    "ray_queues": {},
    # CPUs of a task that does not set num_cpus; the runtime environment of all tasks.
    "ray_num_cpus": 1,
    "ray_runtime_env": None,
    # Messages that may wait. When there are more, apply_async blocks for so many seconds (None: as long as it takes).
    "ray_max_pending": 1_000_000,
    "ray_submit_timeout": None,
    # After so many executors died with a message, its task fails.
    "ray_max_deliveries": 3,
    # Most executors of the application, and the seconds after which an idle one ends.
    "ray_max_executors": 1000,
    "ray_idle_seconds": 60.0,
    # Seconds that a message waits for a node that is large enough for it, before its task fails.
    "ray_infeasible_seconds": 10.0,
    # Arguments and results of this many bytes and more go to Ray's object store.
    "ray_inline_bytes": 100_000,
    # Bytes of results that the dispatcher keeps in memory; when there are more, the oldest are dropped.
    "ray_max_result_bytes": 2_000_000_000,
    # Folder of the dispatcher's journal; None: Ray's session folder on the dispatcher's node.
    "ray_journal": None,
    # Level of the executors' logs; Celery's own line per task needs "DEBUG".
    "ray_log_level": "INFO",
    # Bridge: seconds that a warm shutdown waits for running tasks (None: until they end); messages that are not
    # acknowledged by then go back to the broker.
    "ray_drain_seconds": None,
    # Bridge on RabbitMQ: the broker's consumer_timeout in seconds (None: it has none); raycelery cannot ask for it.
    # Messages that are held for half as long are acknowledged and kept in queues of the bridge.
    "ray_consumer_timeout": 1800,
    # Celery's own settings and defaults, marked so that a project's choice of the same name can be told from them.
    "task_serializer": Unchosen("json"),
    "result_serializer": Unchosen("json"),
}


def give_defaults(app: Any) -> None:
    """Let a plain Celery application know the ``ray_*`` settings' defaults; raycelery's own has them already."""
    if app.conf.get("ray_mode") is None:
        app.add_defaults({name: value for name, value in DEFAULTS.items() if name.startswith("ray_")})


_RESOURCES = ("num_cpus", "num_gpus", "memory")
#: Ray's resolution.
_LEAST = 0.0001


def _amount(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or 0 < value < _LEAST:
        unit = "bytes" if name == "memory" else "a number such as 2 or 0.5"
        raise OptionError(f"{name}={value!r} is not an amount: give {unit}, zero or more")
    if name == "num_gpus" and value > 1 and value != int(value):
        raise OptionError(f"{name}={value!r}: more than one GPU can only be asked for in whole numbers")


def _resources(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r} must be a mapping of resource names to amounts")
    for key, amount in value.items():
        if not isinstance(key, str):
            raise OptionError(f"{name} may not name {key!r}: names are strings")
        if key in ("CPU", "GPU", "memory"):
            raise OptionError(f"{name} may not name {key!r}: use num_cpus, num_gpus or memory")
        _amount(f"{name}[{key!r}]", amount)


def _concurrency(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise OptionError(f"{name}={value!r} must be a whole number of at least 1, or None for no limit")


def _executor(name: str, value: Any) -> None:
    if value not in ("actor", "function"):
        raise OptionError(f"{name}={value!r} must be 'actor' or 'function'")


#: Every per-task, per-queue and per-call option, with its check.
TASK_OPTIONS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(_RESOURCES, _amount),
    "resources": _resources,
    "runtime_env": environment.check,
    "max_concurrency": _concurrency,
    "executor": _executor,
}

#: Misspellings that difflib does not find near enough.
_ALIASES = {
    "cpus": "num_cpus",
    "num_cpu": "num_cpus",
    "ncpus": "num_cpus",
    "cpu": "num_cpus",
    "gpus": "num_gpus",
    "num_gpu": "num_gpus",
    "gpu": "num_gpus",
    "mem": "memory",
    "concurrency": "max_concurrency",
    "env": "runtime_env",
}


def check_options(options: Mapping[str, Any], where: str, *, strict: bool = False) -> None:
    """Refuse malformed or misspelt task options.

    Celery lets any name be an option of a task (it becomes an attribute), so a name is refused only where it is
    near to one of ours, unless ``strict``.

    Arguments:
        options: option names and values, as written by the user.
        where: what they were written on, for the error.
        strict: refuse every name that is not ours.

    Raises:
        OptionError: naming the option and the remedy.
    """
    for name, value in options.items():
        check = TASK_OPTIONS.get(name)
        if check is not None:
            try:
                if value is not None:
                    check(name, value)
            except OptionError as exc:
                raise OptionError(f"{where}: {exc}") from None
            continue
        near = _near(name, TASK_OPTIONS, cutoff=0.85)
        if near and name in _ALIASES and not strict and not _passes(near, value):
            continue  # env="production" is the project's own
        if near or strict:
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(TASK_OPTIONS))}"
            raise OptionError(f"{where}: unknown option {name!r}; {hint}")


def _passes(name: str, value: Any) -> bool:
    try:
        TASK_OPTIONS[name](name, value)
    except OptionError:
        return False
    return True


def options_of(task: Any) -> dict[str, Any]:
    """Return the Ray options among the attributes of a task, checked; a project's own properties and methods are not.

    Raises:
        OptionError: one is malformed.
    """
    found = {}
    for name in TASK_OPTIONS:
        written = inspect.getattr_static(task, name, None)
        if written is not None and not isinstance(written, property) and not callable(written):
            found[name] = written
    if found:
        check_options(found, f"task {task.name!r}")
    return found


def _near(name: str, known: Mapping[str, Any], cutoff: float) -> str | None:
    if name in _ALIASES and _ALIASES[name] in known:
        return _ALIASES[name]
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return found[0] if found else None


def is_setting(name: str, prefix: str | None = None) -> bool:
    """Return whether that is the name of one of Celery's settings or ours, old or new, with or without its prefix."""
    short = name.lower()
    if prefix and short.startswith(f"{prefix.rstrip('_').lower()}_"):
        short = short[len(prefix.rstrip("_")) + 1 :]
    return short in SETTING_KEYS or name in _OLD_SETTING_KEYS or short in DEFAULTS


def check_settings(names: Mapping[str, Any], prefix: str | None = None) -> None:
    """Refuse unknown or malformed ``ray_*`` settings.

    Arguments:
        names: settings as the user wrote them, among others.
        prefix: the namespace they are written in, as ``CELERY`` in ``CELERY_RAY_ADDRESS``.

    Raises:
        OptionError: naming the setting and the remedy.
    """
    lead = f"{prefix.rstrip('_').lower()}_" if prefix else ""
    for raw in list(names):
        name = str(raw)
        if lead and name.lower().startswith(lead):
            name = name.lower().removeprefix(lead)
        if name == "task_annotations":
            _annotations(names[raw])
        if not name.startswith("ray_"):
            continue
        value = names[raw]
        if name not in DEFAULTS:
            if inspect.ismodule(value) or callable(value):
                continue  # something that a settings module imports
            ours = {key: None for key in DEFAULTS if key.startswith("ray_")}
            near = _near(name, ours, cutoff=0.6)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(ours)}"
            raise OptionError(f"unknown setting {name!r}; {hint}")
        check = _SETTINGS.get(name)
        if check is not None:
            check(name, value)
        elif isinstance(DEFAULTS[name], (int, float)):
            _number(name, value)


def _annotations(value: Any) -> None:
    for annotation in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(annotation, Mapping):
            for task, options in annotation.items():
                if isinstance(options, Mapping):
                    check_options(options, f"task_annotations[{task!r}]")


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise OptionError(f"{name}={value!r} must be a number, zero or more")


def _one_or_more(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 1:
        raise OptionError(f"{name}={value!r} must be a number, one or more")


def _queues(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r} must map queue names to task options")
    for queue, options in value.items():
        if not isinstance(options, Mapping):
            raise OptionError(f"{name}[{queue!r}]={options!r} must be a mapping of task options")
        check_options(options, f"{name}[{queue!r}]", strict=True)


def _mode(name: str, value: Any) -> None:
    if value not in ("direct", "bridge"):
        raise OptionError(f"{name}={value!r} must be 'direct' or 'bridge'")


def _text(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise OptionError(f"{name}={value!r} must be a string")


def _address(name: str, value: Any) -> None:
    _text(name, value)
    if value:
        address.check(name, value)


def _yes_or_no(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"{name}={value!r} must be True or False")


def _ray_init(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r} must be a mapping of arguments for ray.init")


def _names(name: str, value: Any) -> None:
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(one, str) and one for one in value):
        raise OptionError(f"{name}={value!r} must be a list of names of environment variables")


def _seconds_or_none(name: str, value: Any) -> None:
    if value is not None:
        _number(name, value)


def _level(name: str, value: Any) -> None:
    if value is not None and not isinstance(logging.getLevelName(str(value).upper()), int):
        raise OptionError(f"{name}={value!r} must be a level of the logging module, such as 'INFO'")


#: The checks of the settings that are not plain numbers.
_SETTINGS: dict[str, Callable[[str, Any], None]] = {
    "ray_mode": _mode,
    "ray_address": _address,
    "ray_init": _ray_init,
    "ray_app": _text,
    "ray_app_name": _text,
    "ray_env_vars": _names,
    "ray_journal": _text,
    "ray_keep_result_backend": _yes_or_no,
    "ray_queues": _queues,
    "ray_num_cpus": _amount,
    "ray_runtime_env": environment.check,
    "ray_max_pending": _one_or_more,
    "ray_max_deliveries": _one_or_more,
    "ray_max_executors": _one_or_more,
    "ray_submit_timeout": _seconds_or_none,
    "ray_drain_seconds": _seconds_or_none,
    "ray_consumer_timeout": _seconds_or_none,
    "ray_log_level": _level,
}
