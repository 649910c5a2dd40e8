"""What ``app.control.inspect()`` asks of workers, answered for the application as a whole by its dispatcher.

Follows https://docs.celeryq.dev/en/stable/userguide/workers.html#inspecting-workers. There is one answer, under
:func:`node_name`, where a Celery fleet would send one per worker.
"""

from __future__ import annotations

import pickle
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from celery.utils.functional import maybe_list

from raycelery import values
from raycelery.errors import RayCeleryError

if TYPE_CHECKING:
    from raycelery.app.application import Celery


def node_name(app: Celery) -> str:
    """Return the name that answers come under."""
    return f"ray@{app.session.name}"


class Inspection:
    """Answers the commands of ``celery.worker.control`` that read; each public method is one.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def _ask(self, place: str, ids: list[str] | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._app.client.call("messages", place, ids)
        return found

    def _info(self, message: dict[str, Any]) -> dict[str, Any]:
        headers, body, content_type, _, delivery, _, _, _ = pickle.loads(message["payload"])
        args, kwargs = headers.get("argsrepr"), headers.get("kwargsrepr")
        if content_type is None:
            try:
                args, kwargs, _ = values.loads(body)
            except (AttributeError, ImportError, RayCeleryError, pickle.UnpicklingError):
                pass  # of classes that are not here: their representation will do
        running = message["place"] == "running"
        return {
            "id": headers["id"],
            "name": headers.get("shadow") or headers["task"],
            "args": list(args) if isinstance(args, tuple) else args,
            "kwargs": kwargs,
            "type": headers["task"],
            "hostname": node_name(self._app),
            "time_start": message["since"] if running else None,
            "acknowledged": running,
            "delivery_info": {
                "exchange": delivery[0],
                "routing_key": delivery[1],
                "priority": delivery[2] or 0,
                "redelivered": message["deliveries"] > 0,
            },
            "worker_pid": message["pid"],
        }

    def ping(self) -> dict[str, str]:
        """Say that the dispatcher is there."""
        self._app.client.call("pending")
        return {"ok": "pong"}

    def clock(self) -> dict[str, int]:
        """Return the logical clock of this process."""
        return {"clock": self._app.clock.forward()}

    def active(self, safe: bool | None = None) -> list[dict[str, Any]]:
        """Return what runs."""
        return [self._info(message) for message in self._ask("running")]

    def reserved(self) -> list[dict[str, Any]]:
        """Return what was handed to an executor and has not begun."""
        return [self._info(message) for message in self._ask("next")]

    def scheduled(self, safe: bool | None = None) -> list[dict[str, Any]]:
        """Return what waits for its time."""
        return [
            {
                "eta": datetime.fromtimestamp(message["eta"], timezone.utc).isoformat(),
                "priority": 6,
                "request": self._info(message),
            }
            for message in self._ask("eta")
        ]

    def query_task(self, ids: Any) -> dict[str, Any]:
        """Return where tasks are, by id."""
        names = {"running": "active", "next": "reserved", "eta": "scheduled", "waiting": "reserved"}
        return {
            message["id"]: [names[message["place"]], self._info(message)]
            for message in self._ask("", [str(task_id) for task_id in maybe_list(ids)])
        }

    def registered(self, taskinfoitems: Any = None, builtins: bool = False) -> list[str]:
        """Return the names of the application's tasks, with the attributes asked for."""
        names = sorted(name for name in self._app.tasks if builtins or not name.startswith("celery."))
        if not taskinfoitems:
            return names
        lines = []
        for name in names:
            task = self._app.tasks[name]
            items = [f"{item}={getattr(task, item)}" for item in taskinfoitems if getattr(task, item, None) is not None]
            lines.append(f"{name} [{' '.join(items)}]" if items else name)
        return lines

    def revoked(self) -> list[str]:
        """Return the revoked ids that are remembered."""
        ids: list[str] = self._app.client.call("revoked")
        return ids

    def active_queues(self) -> list[dict[str, Any]]:
        """Return the application's queues; all of them are served."""
        return [dict(queue.as_dict(recurse=True)) for queue in self._app.amqp.queues.values()]

    def conf(self, with_defaults: bool = False) -> dict[str, Any]:
        """Return the configuration, secrets left out."""
        return {"include": self._app.conf.include, **self._app.conf.table(with_defaults=with_defaults)}

    def report(self) -> dict[str, str]:
        """Return versions and settings, for a bug report."""
        return {"ok": self._app.bugreport()}

    def stats(self) -> dict[str, Any]:
        """Return counts of what waits, runs and serves."""
        stats: dict[str, Any] = self._app.client.call("stats")
        stats.pop("log")
        pids = list(stats.pop("executor_pids").values())
        pool = {"max-concurrency": self._app.conf.worker_concurrency or len(pids), "processes": pids}
        return {**stats, "pool": pool, "clock": str(self._app.clock.value), "total": stats.pop("finished")}
