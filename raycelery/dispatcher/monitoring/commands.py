"""Remote control commands, answered by the dispatcher for each Ray node as Celery's worker would.

Follows ``celery.worker.control`` and https://docs.celeryq.dev/en/stable/userguide/workers.html. Every public function
is a command; its first argument is the node that is asked. What only the application knows (its tasks, its settings)
comes with the question as ``known``: the dispatcher never loads the application.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery.utils.functional import maybe_list
from celery.utils.time import rate
from celery.worker.state import SOFTWARE_INFO
from kombu.pidbox import Mailbox
from kombu.transport.virtual import Message as VirtualMessage

from raycelery.control import commands
from raycelery.dispatcher import steady
from raycelery.dispatcher.monitoring.node import Node, Plane, Reply, Whole
from raycelery.protocol import messages, questions
from raycelery.scheduler.nodes import UNIT

if TYPE_CHECKING:
    from raycelery.dispatcher.monitoring.subject import Subject
    from raycelery.protocol.bus_questions import BusMessage

logger = logging.getLogger(__name__)


def ok(value: Any) -> Reply:
    """Return a good answer."""
    return {"ok": value}


def nok(value: Any) -> Reply:
    """Return an error."""
    return {"error": value}


def take(subject: Subject, plane: Plane, channel: Any, message: BusMessage) -> None:
    """Have every node that a command is meant for carry it out and answer."""
    received = VirtualMessage(message, channel=channel)
    # Whoever may connect to the dispatcher may send it any object, so any serializer will do.
    received.accept = None
    body = received.decode()
    mailbox = Mailbox("", type="fanout", clock=plane.clock)
    nodes = list(plane.nodes().items())
    if body.get("method") in _ONCE and not (body.get("reply_to") or body.get("destination") or body.get("pattern")):
        del nodes[1:]
    whole = Whole(subject, plane)
    for number, (node, hostname) in enumerate(nodes):
        state = Node(whole, node, hostname, number == 0)
        mailbox.Node(hostname, state, channel, COMMANDS).handle_message(body, received)


# -- asking -----------------------------------------------------------------------------------------------------


def ping(node: Node, **_: Any) -> Reply:
    """Say that it is there."""
    return ok("pong")


def clock(node: Node, **_: Any) -> Reply:
    """Return the logical clock."""
    return {"clock": node.plane.clock.value}


def hello(node: Node, from_node: str, revoked: Any = None, **_: Any) -> Reply | None:
    """Tell another worker what was revoked."""
    if from_node == node.hostname:
        return None
    return {"revoked": node.queries.revoked(), "clock": node.plane.clock.forward()}


def active(node: Node, safe: bool = False, **_: Any) -> list[Reply]:
    """Return what runs."""
    return [_info(node, message, safe) for message in node.messages("running")]


def reserved(node: Node, **_: Any) -> list[Reply]:
    """Return what was handed to an executor and has not begun."""
    return [_info(node, message) for message in node.messages("next")]


def scheduled(node: Node, safe: bool = False, **_: Any) -> list[Reply]:
    """Return what waits for its time."""
    return [
        {
            "eta": datetime.fromtimestamp(message["eta"], timezone.utc).isoformat(),
            "priority": 6,
            "request": _info(node, message, safe),
        }
        for message in node.messages("eta")
    ]


def query_task(node: Node, ids: Any, **_: Any) -> Reply:
    """Return where tasks are, by id."""
    names = {"running": "active", "next": "reserved", "eta": "scheduled", "waiting": "reserved"}
    here = {state.id for state in node.executors}
    found = node.queries.messages("", [str(task_id) for task_id in maybe_list(ids) or []])
    return {
        message["id"]: [names[message["place"]], _info(node, message)]
        for message in found
        if message["executor"] in here or (node.first and not message["executor"])
    }


def revoked(node: Node, **_: Any) -> list[str]:
    """Return the revoked ids that are remembered."""
    return node.queries.revoked()


def stats(node: Node, **_: Any) -> Reply:
    """Return counts of what waits, runs and serves."""
    queries = node.queries
    everything = {name: value for name, value in node.whole.stats.items() if name not in ("log", "executor_pids")}
    pids = node.whole.stats["executor_pids"]
    limit = queries.view.limits["app"].maximum
    size = max(1, int(node.cpus))
    counts = {name: everything[name] for name in ("waiting", "scheduled", "pending", "results", "result_bytes")}
    return {
        **everything,
        "clock": str(node.plane.clock.value),
        "uptime": max(1, int(steady.now() - queries.since)),
        "total": node.finished,
        "pool": {
            "implementation": "raycelery: Ray actors",
            "max-concurrency": size if limit is None else min(size, limit),
            "processes": [pids[state.id] for state in node.executors if state.id in pids],
        },
        "prefetch_count": queries.view.policy.max_batch,
        "broker": {"transport": "ray", "hostname": node.hostname.partition("@")[2], **counts},
        "node": {"id": node.id},
        "rusage": {name: value for name, value in node.plane.host_stats.get(node.id).items() if name[0] != "_"},
    }


def _known(node: Node, known: Any = None, **_: Any) -> Any:
    if known is None:
        return nok("only the application knows that: ask through its app.control, or with celery -A")
    return known


def registered(node: Node, known: Any = None, **_: Any) -> Any:
    """Return the application's tasks."""
    return _known(node, known)


def conf(node: Node, known: Any = None, **_: Any) -> Any:
    """Return the application's settings."""
    return _known(node, known)


def report(node: Node, known: Any = None, **_: Any) -> Any:
    """Return versions and settings, for a bug report."""
    return _known(node, known)


def active_queues(node: Node, known: Any = None, **_: Any) -> Any:
    """Return the queues that are served: all but those that were cancelled."""
    queues = _known(node, known)
    if known is None:
        return queues
    limits = node.subject.core.definitions.set_limits
    return [queue for queue in queues if limits.get(f"queue:{queue['name']}") != 0]


def _info(node: Node, message: Mapping[str, Any], safe: bool = False) -> Reply:
    sent = messages.opened(message["payload"])
    args, kwargs = sent.headers.argsrepr, sent.headers.kwargsrepr
    running = message["place"] == "running"
    return {
        "id": message["id"],
        "name": sent.headers.shadow or message["task"],
        "args": args if safe else _plain(args),
        "kwargs": kwargs if safe else _plain(kwargs),
        "type": message["task"],
        "hostname": node.hostname,
        "time_start": steady.wall(message["since"]) if running else None,
        "acknowledged": running,
        "delivery_info": {
            "exchange": sent.delivery.exchange,
            "routing_key": sent.delivery.routing_key,
            "priority": sent.delivery.priority or 0,
            "redelivered": message["deliveries"] > 0,
        },
        "worker_pid": message["pid"],
    }


def _plain(text: str | None) -> Any:
    """Return arguments from their representation where they are plain data; it may be cut short."""
    if text is None or "..." in text:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, tuple) else value


def heartbeat_of(node: Node) -> Reply:
    """Return what a worker says of itself in a heartbeat."""
    machine = node.plane.host_stats.get(node.id)
    return {
        "freq": node.plane.heartbeat_seconds,
        "active": sum(1 for state in node.executors if state.outstanding and not state.lane.for_settlement),
        "processed": sum(node.finished.values()),
        "loadavg": machine.get("loadavg", []),
        **SOFTWARE_INFO,
    }


# -- changing ---------------------------------------------------------------------------------------------------


def revoke(node: Node, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Reply:
    """Revoke tasks by id; ``terminate`` also ends those that run, with SIGKILL whatever ``signal`` says."""
    ids = sorted({str(one) for one in maybe_list(task_id) or []})
    running = {message["id"] for message in node.messages("running")}
    node.subject.change(questions.Revoke(ids, bool(terminate)))
    if terminate:
        ended = [one for one in ids if one in running]
        return ok(f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown")
    return ok(f"tasks {set(ids)} flagged as revoked")


def terminate(node: Node, signal: Any, task_id: Any, **_: Any) -> Reply:
    """Revoke tasks and end those that run."""
    return revoke(node, task_id, terminate=True, signal=signal)


def revoke_by_stamped_headers(node: Node, headers: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Reply:
    """Revoke tasks by stamps."""
    if isinstance(headers, list):
        headers = dict(header.split("=", 1) for header in headers)
    stamps = {name: maybe_list(value) for name, value in headers.items()}
    node.subject.change(questions.RevokeStamps(stamps, bool(terminate)))
    return ok(f"headers {headers} {'revoked' if terminate else 'flagged as revoked, but not terminated'}")


def rate_limit(node: Node, task_name: str, rate_limit: Any, known: bool = True, **_: Any) -> Reply:
    """Set a task's rate limit, for the whole cluster."""
    try:
        per_second = rate(rate_limit)
    except ValueError as exc:
        return nok(f"Invalid rate limit string: {exc!r}")
    if not known:
        return nok("unknown task")
    node.subject.change(questions.SetRate(task_name, per_second or None))
    return ok("new rate limit set successfully" if rate_limit else "rate limit disabled successfully")


def time_limit(
    node: Node, task_name: str, hard: float | None = None, soft: float | None = None, known: bool = True, **_: Any
) -> Reply:
    """Set a task's time limits, in seconds, for calls that do not bring their own."""
    if not known:
        return nok("unknown task")
    node.subject.change(questions.SetTimeLimit(task_name, soft, hard))
    return ok("time limits set successfully")


def pool_grow(node: Node, n: int = 1, **_: Any) -> Reply:
    """Let more messages of the application run at once."""
    return _resize(node, int(n))


def pool_shrink(node: Node, n: int = 1, **_: Any) -> Reply:
    """Let fewer messages of the application run at once."""
    return _resize(node, -int(n))


def _resize(node: Node, by: int) -> Reply:
    scheduler = node.queries.view
    now = scheduler.limits["app"].maximum
    cpus = max(1, int(scheduler.nodes.total_cpus / UNIT))
    if now is None and by > 0:
        return nok(f"only its {cpus} CPUs limit the application: set worker_concurrency, or shrink first")
    then = max(0, (cpus if now is None else now) + by)
    if then >= cpus and "app" not in node.subject.core.definitions.limits:
        # As it was before it was shrunk.
        node.subject.change(questions.RestoreLimit("app"))
    else:
        node.subject.change(questions.SetLimit("app", then))
    return ok(f"pool will {'grow' if by > 0 else 'shrink'}: {then} messages at once in the whole cluster")


def pool_restart(node: Node, **_: Any) -> Reply:
    """Have executors end after their current tasks; new ones load the application anew."""
    return ok(f"{_retire(node)} executors end after their current tasks")


def shutdown(node: Node, **_: Any) -> Reply:
    """Have the node's executors end after their current tasks; others start when there is work, here or elsewhere."""
    return ok(f"{_retire(node)} executors end after their current tasks")


def _retire(node: Node) -> int:
    node.subject.retire([state.id for state in node.executors])
    return len(node.executors)


def autoscale(node: Node, max: int | None = None, min: int | None = None, **_: Any) -> Reply:
    """Refuse: executors follow the backlog as it is."""
    return nok("the number of executors follows the backlog; limit it with pool_shrink and pool_grow")


def cancel_consumer(node: Node, queue: str, **_: Any) -> Reply:
    """Let nothing of a queue run, in the whole cluster, until it is added again."""
    node.subject.change(questions.SetLimit(f"queue:{queue}", 0))
    return ok(f"no longer consuming from {queue}")


def add_consumer(node: Node, queue: str, *args: Any, **_: Any) -> Reply:
    """Serve a queue again; there is no need to name new ones."""
    name = f"queue:{queue}"
    if name not in node.subject.core.definitions.set_limits:
        return ok(f"already consuming from {queue}")
    node.subject.change(questions.RestoreLimit(name))
    return ok(f"add consumer {queue}")


def enable_events(node: Node, **_: Any) -> Reply:
    """Send task events while somebody listens, which is so from the beginning."""
    return _task_events(node, True)


def disable_events(node: Node, **_: Any) -> Reply:
    """Send no task events."""
    return _task_events(node, False)


def _task_events(node: Node, wanted: bool) -> Reply:
    plane = node.plane
    word = "enabled" if wanted else "disabled"
    if plane.task_events == wanted and node.first:
        return ok(f"task events already {word}")
    plane.task_events = wanted
    plane.see_who_listens()
    return ok(f"task events {word}")


def heartbeat(node: Node, **_: Any) -> None:
    """Send a heartbeat at once."""
    if node.first:
        node.plane.heartbeat()


#: Commands that one node carries out for all.
_ONCE = frozenset(
    {"heartbeat", "rate_limit", "revoke", "revoke_by_stamped_headers", "terminate", "time_limit", "cancel_consumer",
     "add_consumer", "enable_events", "disable_events"}
)  # fmt: skip
_ALIASES = {
    "dump_active": active,
    "dump_conf": conf,
    "dump_reserved": reserved,
    "dump_revoked": revoked,
    "dump_schedule": scheduled,
    "dump_tasks": registered,
}
COMMANDS: dict[str, Callable[..., Any]] = {
    **{
        fun.__name__: fun
        for fun in (
            active, active_queues, add_consumer, autoscale, cancel_consumer, clock, conf, disable_events,
            enable_events, heartbeat, hello, ping, pool_grow, pool_restart, pool_shrink, query_task, rate_limit,
            registered, report, reserved, revoke, revoke_by_stamped_headers, revoked, scheduled, shutdown, stats,
            terminate, time_limit,
        )
    },
    **_ALIASES,
}  # fmt: skip
assert COMMANDS.keys() == commands.NAMES
