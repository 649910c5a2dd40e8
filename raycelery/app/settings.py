"""The ``ray_*`` settings: what each is, its default, and the check that refuses a wrong one by name."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.app.defaults import _OLD_SETTING_KEYS, SETTING_KEYS

from raycelery.app import environment
from raycelery.app.options import check_amount, check_options, nearest
from raycelery.cluster import address
from raycelery.errors import OptionError
from raycelery.masking import masked

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


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise OptionError(f"{name}={value!r} must be a number, zero or more")


def _one_or_more(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 1 or value != int(value):
        raise OptionError(f"{name}={value!r} must be a whole number, one or more")


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{name}={value!r} must be a whole number, zero or more")


def _queues(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={masked(value)!r} must map queue names to task options")
    for queue, options in value.items():
        if not isinstance(options, Mapping):
            raise OptionError(f"{name}[{queue!r}]={masked(options)!r} must be a mapping of task options")
        check_options(options, f"{name}[{queue!r}]", strict=True)


def _mode(name: str, value: Any) -> None:
    if value not in ("direct", "bridge", "mixed"):
        raise OptionError(f"{name}={value!r} must be 'direct', 'bridge' or 'mixed'")


def _out_of_reach(name: str, value: Any) -> None:
    if value not in ("broker", "raise"):
        raise OptionError(f"{name}={value!r} must be 'broker' or 'raise'")


def _share(name: str, value: Any) -> None:
    if callable(value) or (isinstance(value, str) and ":" in value):
        return
    for part in value.values() if isinstance(value, Mapping) else [value]:
        if isinstance(part, bool) or not isinstance(part, (int, float)) or not 0 <= part <= 1:
            raise OptionError(
                f"{name}={value!r} must be a number from 0 to 1, a mapping of such by patterns of tasks' names, or a "
                "function of a task's name and its message's headers, which may be named as 'module:function'"
            )


def _durability(name: str, value: Any) -> None:
    if value not in ("process", "node"):
        raise OptionError(f"{name}={value!r} must be 'process' or 'node'")


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
        raise OptionError(f"{name}={masked(value)!r} must be a mapping of arguments for ray.init")


def _names(name: str, value: Any) -> None:
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(isinstance(one, str) and one for one in value):
        raise OptionError(f"{name}={masked(value)!r} must be a list of names of environment variables")


def _seconds_or_none(name: str, value: Any) -> None:
    if value is not None:
        _number(name, value)


def _level(name: str, value: Any) -> None:
    if value is not None and not isinstance(logging.getLevelName(str(value).upper()), int):
        raise OptionError(f"{name}={value!r} must be a level of the logging module, such as 'INFO'")


@dataclass(frozen=True)
class Setting:
    """One of the ``ray_*`` settings; ``docs/settings.md`` is generated from them.

    Arguments:
        default: its value where nobody sets it.
        kind: its type or unit, in words.
        about: what it does; Markdown, with links as from a page in ``docs/``.
        check: raises :class:`OptionError` for a malformed value; called with the setting's name and the value.
        computed: what takes the place of the default None, where that depends on the application.
    """

    default: Any
    kind: str
    about: str
    check: Callable[[str, Any], None]
    computed: str = ""


#: The settings by name, which are written like any of Celery's (``app.conf.ray_address``, ``CELERY_RAY_ADDRESS``...).
SETTINGS: dict[str, Setting] = {
    "ray_mode": Setting(
        "direct", "string",
        '`"direct"`: no broker, calls go to the dispatcher; `"bridge"`: Celery\'s worker consumes a real broker and '
        '[runs tasks on Ray](bridge.md); `"mixed"`: each call goes '
        "[to Ray or to the broker](switching.md#task-by-task)",
        _mode,
    ),
    "ray_address": Setting(
        None, "string",
        'the [cluster](clusters.md): `"host:6379"`; `"auto"`: the one on this machine; `"local"`: a Ray inside the '
        'program; `None`: `RAY_ADDRESS`, or else as `"local"`',
        _address,
    ),
    "ray_init": Setting(
        {}, "mapping",
        "further arguments for `ray.init`; those that describe a Ray to start (`num_cpus`...) count if one is started; "
        '`{"log_to_driver": False}` hides [what tasks print](logs.md)',
        _ray_init,
    ),
    "ray_app": Setting(
        None, "string",
        "where executors import the application from, if not from the module that made it: as `celery -A` takes it, or "
        'a factory, `"shop:create_app()"`; `None`: `RAYCELERY_APP`, or else found automatically',
        _text,
    ),
    "ray_env_vars": Setting(
        (), "list of strings",
        'further environment variables of the caller that executors get: `["MY_DB_URL", "AWS_*"]`; `DJANGO_*`, '
        "`CELERY_*` and `FLASK_*` always travel",
        _names,
    ),
    "ray_app_name": Setting(
        None, "string",
        "name of the application's dispatcher: processes that use one name share it, with its queues and results",
        _text,
        computed="the app's name",
    ),
    "ray_keep_result_backend": Setting(
        False, "boolean",
        "`True`: results go to `result_backend`; `False`: the dispatcher keeps them",
        _yes_or_no,
    ),
    "ray_old_results": Setting(
        True, "boolean",
        "`True`: ids that Ray does not know are [looked up in `result_backend`](switching.md#old-ids), where one is "
        "named; `False`: they are PENDING",
        _yes_or_no,
    ),
    "ray_check_broker": Setting(
        True, "boolean",
        "`True`: a process in direct mode looks once, in the background, whether the broker that is named "
        "[still holds messages](switching.md#what-the-broker-still-holds), and says so in its log",
        _yes_or_no,
    ),
    "ray_share": Setting(
        0, "number, mapping or function",
        "mixed: which share of calls goes to Ray, from 0 to 1: of all, by patterns of tasks' names "
        '(`{"shop.mail*": 0.1}`; the longest that matches counts), or a function of a task\'s name and headers, also '
        'as `"module:function"`',
        _share,
    ),
    "ray_out_of_reach": Setting(
        "broker", "string",
        'mixed, where the cluster cannot be reached: `"broker"`: calls go to the broker; `"raise"`: they fail',
        _out_of_reach,
    ),
    "ray_queues": Setting(
        {}, "mapping",
        '[task options](using.md#what-a-task-needs) per queue: `{"nightly": {"num_cpus": 2, "max_concurrency": 8}}`',
        _queues,
    ),
    "ray_num_cpus": Setting(1, "number", "CPUs of a task that does not set `num_cpus`", check_amount),
    "ray_runtime_env": Setting(
        None, "mapping",
        "[runtime environment](https://docs.ray.io/en/latest/ray-core/handling-dependencies.html) of all tasks",
        environment.check,
    ),
    "ray_max_pending": Setting(
        1_000_000, "number",
        "messages that may wait; when there are more, `apply_async` blocks (each program may have some on the way)",
        _one_or_more,
    ),
    "ray_max_pending_bytes": Setting(
        4_000_000_000, "bytes",
        "what waiting messages carry, without large values, which are in Ray's object store; when it is more, "
        "`apply_async` blocks",
        _number,
    ),
    "ray_submit_timeout": Setting(
        None, "seconds",
        "how long `apply_async` blocks before it raises [`QueueFull`](exceptions.md); `None`: without limit",
        _seconds_or_none,
    ),
    "ray_max_deliveries": Setting(
        3, "number", "after so many executors died with a message, its task fails", _one_or_more
    ),
    "ray_max_executors": Setting(1_000, "number", "most executors of the application", _one_or_more),
    "ray_idle_seconds": Setting(60.0, "seconds", "an executor ends when it has been idle for so long", _number),
    "ray_dispatcher_idle_seconds": Setting(
        3600.0, "seconds",
        "the dispatcher ends when nobody has been connected for so long and nothing waits; the next call starts it "
        "again, with its results; `None`: it does not end",
        _seconds_or_none,
    ),
    "ray_infeasible_seconds": Setting(
        10.0, "seconds",
        "where no [autoscaler](elastic.md) is known: how long a message waits for a node that is large enough for it, "
        "before its task fails",
        _number,
    ),
    "ray_max_nodes_ahead": Setting(
        100, "number",
        "most nodes that Ray's [autoscaler](elastic.md) is asked for before they have come; 0: none, as if there were "
        "no autoscaler",
        _whole,
    ),
    "ray_rerun_preempted": Setting(
        False, "boolean",
        "what becomes of a task that still runs when its [node is taken away](elastic.md#nodes-that-are-taken-away): "
        "one with `acks_late` runs again elsewhere; the others do, too, if this is `True`, and fail with "
        "`WorkerLostError` if not",
        _yes_or_no,
    ),
    "ray_inline_bytes": Setting(
        100_000, "bytes", "arguments and results of this size and more are put into Ray's object store", _number
    ),
    "ray_max_result_bytes": Setting(
        2_000_000_000, "bytes",
        "memory for results, values and parts of chords at the dispatcher; when they take more, the oldest results and "
        "values are dropped, but no parts of chords that run",
        _number,
    ),
    "ray_journal": Setting(
        None, "string",
        "folder of the journal, a file from which a restarted dispatcher goes on; `None`: Ray's session folder on the "
        "dispatcher's node; it is made in a folder `raycelery` there, which only the dispatcher's user may enter",
        _text,
    ),
    "ray_journal_key": Setting(
        None, "string",
        "file with the secret that [seals the journal](security.md#the-journal), on whatever node the dispatcher is; "
        "`None`: one that is made beside the journal",
        _text,
    ),
    "ray_durability": Setting(
        "process", "string",
        'what the journal [survives](guarantees.md): `"process"`: the dispatcher\'s end; `"node"`: also that of its '
        "machine, since it is forced to the disk before anything is acknowledged",
        _durability,
    ),
    "ray_reconnect_seconds": Setting(
        60.0, "seconds",
        "how long a dispatcher that went away is looked for before calls and waits fail; and how long one that has "
        "lost its journal may not know a task before that fails with [`JournalLost`](exceptions.md)",
        _number,
    ),
    "ray_debug": Setting(
        False, "boolean",
        "the dispatcher checks its books after each of its steps, and logs what does not agree; for those who look for "
        "a mistake in raycelery, as it is slow",
        _yes_or_no,
    ),
    "ray_log_level": Setting(
        "INFO", "string or number",
        'log level of the executors ([where logs go](logs.md)); Celery\'s own line per task needs `"DEBUG"`',
        _level,
    ),
    "ray_drain_seconds": Setting(
        None, "seconds",
        "bridge: how long a warm shutdown waits for running tasks (`None`: until they end); messages that are not "
        "acknowledged by then go back to the broker",
        _seconds_or_none,
    ),
    "ray_consumer_timeout": Setting(
        1800, "seconds",
        "bridge on RabbitMQ: the broker's `consumer_timeout`, which raycelery cannot ask for (`None`: it has none); "
        "messages that are held for half as long are acknowledged and kept in queues of the bridge",
        _seconds_or_none,
    ),
}  # fmt: skip

#: What an application's configuration begins with.
DEFAULTS: dict[str, Any] = {
    **{name: setting.default for name, setting in SETTINGS.items()},
    # Celery's own settings and defaults, marked so that a project's choice of the same name can be told from them.
    "task_serializer": Unchosen("json"),
    "result_serializer": Unchosen("json"),
    # A beat that is killed knows what it has sent.
    "beat_scheduler": "raycelery.control.beat_scheduler:BeatScheduler",
    "beat_sync_every": 1,
}


def give_defaults(app: Any) -> None:
    """Let a plain Celery application know the ``ray_*`` settings' defaults; raycelery's own has them already."""
    if app.conf.get("ray_mode") is None:
        app.add_defaults({name: setting.default for name, setting in SETTINGS.items()})


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
        if name not in SETTINGS:
            if inspect.ismodule(value) or callable(value):
                continue  # something that a settings module imports
            near = nearest(name, SETTINGS, cutoff=0.6)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(SETTINGS)}"
            raise OptionError(f"unknown setting {name!r}; {hint}")
        SETTINGS[name].check(name, value)


def _annotations(value: Any) -> None:
    for annotation in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(annotation, Mapping):
            for task, options in annotation.items():
                if isinstance(options, Mapping):
                    check_options(options, f"task_annotations[{task!r}]")
