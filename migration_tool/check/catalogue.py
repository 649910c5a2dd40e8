"""What becomes of each feature of Celery on raycelery: the compatibility tables of README.md and docs/using.md.

An entry is a tuple: the verdict, how it changes or why it does not work, and what to do instead.
"""

from __future__ import annotations

from celery.app import defaults

from ..model import Verdict

Entry = tuple[Verdict, str, str]
WORKS: Entry = (Verdict.WORKS, "", "")
#: It works, and there is something better for large ones.
CHUNKS: Entry = (
    Verdict.WORKS,
    "works as it is; raycelery.batch.map streams very many arguments through Ray Data",
    "raycelery.batch.map(task, arguments, batch_size=...) for data that is larger than memory",
)


def changes(how: str, instead: str = "") -> Entry:
    """An entry for what works, but differently."""
    return (Verdict.CHANGES, how, instead)


def manual(why: str, instead: str) -> Entry:
    """An entry for what must be changed by hand."""
    return (Verdict.MANUAL, why, instead)


_BRIDGE = 'set ray_mode = "bridge" to keep broker and workers'
_NO_WORKER = manual("direct mode runs no Celery worker that this could hook into", _BRIDGE)
_STEPS = manual(
    "in direct mode the steps are made in executors (the processes that run tasks), but not started", _BRIDGE
)
_SET_UP = changes("sent once in each process that runs tasks (executor), but not to handlers for one worker's name")
_ROUTED = changes(
    "in direct mode the task runs once, in the first queue that is bound to that exchange and routing key"
)
_EVENTS = changes("in direct mode events are sent only while somebody listens to them")
BEAT = changes("`celery beat` works unchanged and sends to Ray; `raycelery beat` runs the schedule in the cluster")
REDBEAT = changes(
    "`celery beat` works unchanged and sends to Ray; its schedule stays in Redis, which must go on running"
)
EXTENSION = manual(
    "an extension makes the application, of Celery's class",
    "make it of raycelery.Celery, as Flask's documentation does",
)
SERVER = manual("results on Ray have no server to speak to", "set ray_keep_result_backend = True to keep a backend")
_CONNECTION = changes("in direct mode it leads to Ray and carries remote control and events, not tasks")

#: Modules and names of Celery's; the longest that matches decides.
NAMES: dict[str, Entry] = {
    "celery": WORKS,
    "celery.beat": BEAT,
    "celery.events": _EVENTS,
    "celery.bootsteps": _STEPS,
    "celery.worker": _NO_WORKER,
    "celery.worker.request.Request": WORKS,
    "celery.worker.control": manual("direct mode has no custom control commands", _BRIDGE),
    "celery.apps": _NO_WORKER,
    "celery.concurrency": _NO_WORKER,
    "celery.bin": changes("runs Celery's own commands, which start nothing on Ray"),
    "celery.backends": changes("results are kept on Ray", "set ray_keep_result_backend = True to keep a backend"),
    "celery.contrib.rdb": manual("an executor has no terminal for the debugger", "use Ray's debugger"),
    "celery.contrib.migrate": manual("it moves messages between brokers, and direct mode has none", _BRIDGE),
    "celery.signals.worker_ready": _NO_WORKER,
    "celery.signals.worker_shutting_down": _NO_WORKER,
    "celery.signals.worker_shutdown": _NO_WORKER,
    "celery.signals.celeryd_init": _SET_UP,
    "celery.signals.celeryd_after_setup": _SET_UP,
    "celery.signals.worker_before_create_process": _NO_WORKER,
    "celery.signals.heartbeat_sent": _NO_WORKER,
    "celery.signals.eventlet_pool_started": _NO_WORKER,
    "celery.signals.beat_init": BEAT,
    "celery.signals.beat_embedded_init": BEAT,
    "celery.signals.worker_init": changes("sent once in each process that runs tasks (executor)"),
    "celery.signals.worker_process_init": changes("sent once in each process that runs tasks (executor)"),
    "celery.security": manual("messages are not signed on Ray", "restrict who may use the Ray cluster"),
    "celery.schedules.crontab": WORKS,
}  # fmt: skip

#: Options of tasks and of calls.
OPTIONS: dict[str, Entry] = {
    "serializer": changes("still used, with its rules; without it any value that pickle can carry may be passed"),
    "compression": changes("no effect unless a serializer is set: Ray carries values uncompressed"),
    "connection": manual("direct mode has no connection to a broker", "leave it out"),
    "producer": manual("direct mode has no connection to a broker", "leave it out"),
    "exchange": _ROUTED,
    "routing_key": _ROUTED,
    "delivery_mode": changes("no effect in direct mode, which has no broker"),
    "reply_to": changes("no effect in direct mode, which has no broker"),
    "shadow": WORKS,
    "backend": changes("results are kept on Ray", "set ray_keep_result_backend = True to keep it"),
    "send_events": WORKS,
    "abstract": WORKS,
    "run_every": BEAT,
}  # fmt: skip

#: Methods and attributes of an application.
OF_APP: dict[str, Entry] = {
    "control": WORKS,
    "control.inspect": changes("answered once per Ray node instead of once per worker"),
    "control.broadcast": manual("direct mode has Celery's own control commands only", _BRIDGE),
    "control.pool_grow": changes("limits how many tasks run at once in the whole cluster"),
    "control.pool_shrink": changes("limits how many tasks run at once in the whole cluster"),
    "control.add_consumer": changes("starts a stopped queue again, in the whole cluster"),
    "control.cancel_consumer": changes("stops a queue, in the whole cluster"),
    "control.shutdown": changes("running tasks are finished, then their processes end; new ones start as needed"),
    "control.autoscale": manual("no pool to resize: processes start for what waits", "set worker_concurrency"),
    "events": _EVENTS,
    "worker_main": manual("direct mode runs no Celery worker", "leave it out"),
    "Worker": manual("direct mode runs no Celery worker", "leave it out"),
    "WorkController": _NO_WORKER,
    "Beat": BEAT,
    "start": manual("direct mode runs no Celery worker", "leave it out"),
    "steps": _STEPS,
    "user_options": _NO_WORKER,
    "add_periodic_task": BEAT,
    "connection": _CONNECTION,
    "connection_for_read": _CONNECTION,
    "connection_for_write": _CONNECTION,
    "connection_or_acquire": _CONNECTION,
    "producer_pool": manual("direct mode has no broker", _BRIDGE),
    "producer_or_acquire": manual("direct mode has no broker", _BRIDGE),
    "amqp": changes("messages go to the dispatcher, not to a broker"),
    "backend": changes("results are kept on Ray", "set ray_keep_result_backend = True to keep a backend"),
}  # fmt: skip

_KEEP = "set ray_keep_result_backend = True to keep it"
_LEAVE_OUT = "leave it out to pass any value that pickle can carry"
_URLS = changes("not contacted in direct mode: messages go to Ray, and no broker has to run")
_NO_BROKER = changes("no effect in direct mode, which has no broker")
_NO_POOL = changes("no effect in direct mode, which has no Celery worker")
#: Settings by their name since Celery 4.
SETTINGS: dict[str, Entry] = {
    "broker_url": _URLS,
    "broker_read_url": _URLS,
    "broker_write_url": _URLS,
    "result_backend": changes("not used in direct mode: results are kept on Ray", _KEEP),
    "task_serializer": changes("still used for arguments, with its rules", _LEAVE_OUT),
    "result_serializer": changes("still used for results, with its rules", _LEAVE_OUT),
    "accept_content": changes("looked at only where a serializer is set or the broker is kept"),
    "beat_schedule": BEAT,
    "beat_scheduler": BEAT,
    "beat_schedule_filename": BEAT,
    "worker_concurrency": changes("limits how many of the application's tasks run at once in the whole cluster"),
    "worker_send_task_events": changes("no effect in direct mode: events are sent whenever somebody listens to them"),
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
    "redis_": changes("no effect in direct mode: results are kept on Ray"),
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
    """Return the entry of the longest prefix of a dotted name; None if the table has none."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        entry = table.get(".".join(parts[:end]))
        if entry is not None:
            return entry
    return None


def setting_name(written: str, namespace: str = "") -> str | None:
    """Return Celery's lower-case name of a setting; None if it is not one of Celery's.

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
    """Return what becomes of a setting, by its lower-case name."""
    if name in SETTINGS:
        return SETTINGS[name]
    for prefix, entry in _PREFIXES.items():
        if name.startswith(prefix):
            return entry
    if name.startswith(_BACKENDS):
        return changes("no effect in direct mode: results are kept on Ray", "ray_keep_result_backend = True keeps it")
    return WORKS
