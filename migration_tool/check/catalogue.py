"""What becomes of each thing that Celery has. The tables of README.md and docs/using.md, in the words of one use.

An entry is (verdict, how it changes or why not, what to do instead).
"""

from __future__ import annotations

from celery.app import defaults

from migration_tool.model import Verdict

Entry = tuple[Verdict, str, str]
WORKS: Entry = (Verdict.WORKS, "", "")


def changes(how: str, instead: str = "") -> Entry:
    """It works, but differently."""
    return (Verdict.CHANGES, how, instead)


def manual(why: str, instead: str) -> Entry:
    """It must be changed by hand."""
    return (Verdict.MANUAL, why, instead)


_BRIDGE = 'set ray_mode = "bridge" to keep broker and workers for it'
_NO_WORKER = manual("in direct mode there is no Celery worker to hook into", _BRIDGE)
_EVENTS = changes("in direct mode the dispatcher sends them, while somebody listens")
BEAT = changes("`celery beat` sends to Ray as it is; `raycelery beat` runs the schedule in the cluster")
_CONNECTION = changes("in direct mode it carries remote control and events; tasks do not pass through it")

#: Modules and names outside the project; the longest that fits decides.
NAMES: dict[str, Entry] = {
    "celery": WORKS,
    "celery.beat": BEAT,
    "celery.events": _EVENTS,
    "celery.bootsteps": _NO_WORKER,
    "celery.worker": _NO_WORKER,
    "celery.worker.request.Request": WORKS,
    "celery.worker.control": manual("custom control commands do not exist in direct mode", _BRIDGE),
    "celery.apps": _NO_WORKER,
    "celery.concurrency": _NO_WORKER,
    "celery.bin": changes("it goes on running Celery's own commands, which start no executor on Ray"),
    "celery.backends": changes("results are kept on Ray", "set ray_keep_result_backend = True to keep a backend"),
    "celery.contrib.rdb": manual("an executor has no terminal for the debugger", "use Ray's debugger"),
    "celery.contrib.migrate": manual("it moves messages between brokers, and there is none", _BRIDGE),
    "celery.signals.worker_ready": _NO_WORKER,
    "celery.signals.worker_shutting_down": _NO_WORKER,
    "celery.signals.worker_shutdown": _NO_WORKER,
    "celery.signals.celeryd_init": _NO_WORKER,
    "celery.signals.celeryd_after_setup": _NO_WORKER,
    "celery.signals.worker_before_create_process": _NO_WORKER,
    "celery.signals.heartbeat_sent": _NO_WORKER,
    "celery.signals.eventlet_pool_started": _NO_WORKER,
    "celery.signals.beat_init": BEAT,
    "celery.signals.beat_embedded_init": BEAT,
    "celery.signals.worker_init": changes("it is sent once in each executor"),
    "celery.signals.worker_process_init": changes("it is sent once in each executor"),
    "celery.security": manual("messages are not signed on Ray", "restrict who may use the Ray cluster"),
    "celery.schedules.crontab": WORKS,
}  # fmt: skip

#: Options of tasks and of calls.
OPTIONS: dict[str, Entry] = {
    "serializer": changes("values travel as this serializer gives them; without it, as Ray does, any picklable value"),
    "compression": changes("values travel by Ray, which does not compress them"),
    "connection": manual("there is no broker connection", "leave it out"),
    "producer": manual("there is no broker connection", "leave it out"),
    "exchange": changes("there is no broker: the queue decides"),
    "routing_key": changes("there is no broker: the queue decides"),
    "delivery_mode": changes("there is no broker"),
    "reply_to": changes("there is no broker"),
    "shadow": WORKS,
    "backend": changes("results are kept on Ray", "set ray_keep_result_backend = True to keep it"),
    "send_events": WORKS,
    "abstract": WORKS,
    "run_every": BEAT,
}  # fmt: skip

#: Methods and attributes of an application.
OF_APP: dict[str, Entry] = {
    "control": WORKS,
    "control.inspect": changes("a Ray node answers where a worker did"),
    "control.broadcast": manual("only Celery's own commands exist in direct mode", _BRIDGE),
    "control.pool_grow": changes("it bounds what runs at once in the whole cluster"),
    "control.pool_shrink": changes("it bounds what runs at once in the whole cluster"),
    "control.add_consumer": changes("it has a queue served again, in the whole cluster"),
    "control.cancel_consumer": changes("it stops a queue in the whole cluster"),
    "control.shutdown": changes("executors end after what they run; new ones start when there is work"),
    "control.autoscale": manual("there is no pool; executors follow the backlog", "set worker_concurrency"),
    "events": _EVENTS,
    "worker_main": manual("no worker runs in direct mode", "leave it out"),
    "Worker": manual("no worker runs in direct mode", "leave it out"),
    "WorkController": _NO_WORKER,
    "Beat": BEAT,
    "start": manual("no worker runs in direct mode", "leave it out"),
    "steps": _NO_WORKER,
    "user_options": _NO_WORKER,
    "add_periodic_task": BEAT,
    "connection": _CONNECTION,
    "connection_for_read": _CONNECTION,
    "connection_for_write": _CONNECTION,
    "connection_or_acquire": _CONNECTION,
    "producer_pool": manual("there is no broker", _BRIDGE),
    "producer_or_acquire": manual("there is no broker", _BRIDGE),
    "amqp": changes("messages go to the dispatcher, not to a broker"),
    "backend": changes("results are kept on Ray", "set ray_keep_result_backend = True to keep a backend"),
}  # fmt: skip

_URLS = changes("in direct mode it gives way to ray://; nothing has to run there")
_NO_BROKER = changes("it has no effect in direct mode: there is no broker")
_NO_POOL = changes("it has no effect in direct mode: there is no worker")
#: Settings by their name since Celery 4.
SETTINGS: dict[str, Entry] = {
    "broker_url": _URLS,
    "broker_read_url": _URLS,
    "broker_write_url": _URLS,
    "result_backend": changes("in direct mode it gives way to ray://", "set ray_keep_result_backend = True to keep it"),
    "task_serializer": changes("values travel as it gives them", "leave it out, and any picklable value travels"),
    "result_serializer": changes("results travel as it gives them", "leave it out, and any picklable value travels"),
    "accept_content": changes("it counts in bridge mode"),
    "beat_schedule": BEAT,
    "beat_scheduler": BEAT,
    "beat_schedule_filename": BEAT,
    "worker_concurrency": changes("it is the most messages of the application that run at once, in the whole cluster"),
    "worker_send_task_events": changes("in direct mode task events are sent while somebody listens"),
    "task_send_sent_event": WORKS,
    "worker_max_tasks_per_child": WORKS,
    "worker_max_memory_per_child": WORKS,
    "worker_hijack_root_logger": WORKS,
    "worker_redirect_stdouts": WORKS,
    "worker_redirect_stdouts_level": WORKS,
    "worker_log_format": WORKS,
    "worker_task_log_format": WORKS,
    "worker_disable_rate_limits": WORKS,
    "task_default_queue": WORKS,
    "result_expires": WORKS,
    "result_extended": WORKS,
}  # fmt: skip
_PREFIXES = {
    "broker_": _NO_BROKER,
    "redis_": changes("it has no effect in direct mode: results are kept on Ray"),
    "worker_": _NO_POOL,
    "control_": WORKS,
    "event_": WORKS,
    "beat_": BEAT,
    "security_": manual("messages are not signed on Ray", "restrict who may use the Ray cluster"),
    "result_exchange": _NO_BROKER,
}
_BACKENDS = (
    "azureblockblob", "cassandra", "cosmosdbsql", "couchbase", "couchdb", "database", "dynamodb", "elasticsearch",
    "gcs", "mongodb", "arangodb", "s3", "consul", "filesystem", "django_celery", "cache_backend",
)  # fmt: skip
#: All names of Celery's settings, since version 4 and before.
SETTING_NAMES = frozenset(defaults.SETTING_KEYS)
OLD_NAMES = dict(defaults._TO_NEW_KEY)


def longest(table: dict[str, Entry], dotted: str) -> Entry | None:
    """The entry of the longest beginning of a dotted name."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        entry = table.get(".".join(parts[:end]))
        if entry is not None:
            return entry
    return None


def setting_name(written: str, namespace: str = "") -> str | None:
    """Celery's name for a setting as it is written, in lower case; None if it has none such.

    Arguments:
        written: "broker_url", "CELERY_BROKER_URL", "BROKER_URL", "CELERYD_CONCURRENCY"...
        namespace: prefix that the application was told to look for, such as "CELERY".
    """
    candidates = [written]
    if namespace and written.startswith(f"{namespace}_"):
        candidates.insert(0, written[len(namespace) + 1 :])
    for name in candidates:
        if name.lower() in SETTING_NAMES and (name.islower() or namespace):
            return name.lower()
        if name in OLD_NAMES:
            return str(OLD_NAMES[name])
        if name.lower().startswith("ray_"):
            return name.lower()
    return None


def setting(name: str) -> Entry:
    """What becomes of a setting."""
    if name in SETTINGS:
        return SETTINGS[name]
    for prefix, entry in _PREFIXES.items():
        if name.startswith(prefix):
            return entry
    if name.startswith(_BACKENDS):
        return changes(
            "it has no effect in direct mode: results are kept on Ray", "ray_keep_result_backend = True keeps it"
        )
    return WORKS
