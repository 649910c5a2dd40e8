"""``ray_mode = "mixed"``: which calls go to Ray, and which to the broker.

The share of each task is what was set live (``raycelery switch set``), else what the project's ``ray_share`` says. A
call's side follows from its id, so that it stays the same however often it is sent, and a retry stays where the task
runs. Without a cluster, calls go to the broker (``ray_out_of_reach``).
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from celery import current_task
from kombu.utils.imports import symbol_by_name

from raycelery.client import session
from raycelery.errors import RayCeleryError
from raycelery.switch.shares import LiveShares

logger = logging.getLogger(__name__)

#: Seconds until a cluster that is out of reach is tried again, in the background.
AGAIN_SECONDS = 5.0
#: How exchanges of Celery's delayed delivery begin, and how long what their routing keys begin with is.
_DELAYED, _DIGITS = "celery_delayed_", 56


def sender(app: Any, send: Callable[..., Any]) -> Callable[..., Any]:
    """Return what takes the place of Celery's ``send_task_message`` in mixed mode.

    Arguments:
        app: the application.
        send: Celery's own, made of the application's settings.
    """
    sides = Sides(app)

    def send_task_message(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
        if not sides.to_ray(name, message.headers):
            return send(producer, name, message, *args, **options)
        exchange = options.get("exchange")
        if str(getattr(exchange, "name", exchange)).startswith(_DELAYED):
            # Celery means RabbitMQ to keep it until it is due; Ray does so itself.
            options["routing_key"] = options["routing_key"][_DIGITS:]
            options["queue"] = _queue_of(app, options["routing_key"])
            del options["exchange"]
        return send(app.producer, name, message, *args, **options)

    return send_task_message


def _queue_of(app: Any, routing_key: str) -> str:
    for name, queue in app.amqp.queues.items():
        if routing_key in (queue.routing_key, name):
            return str(name)
    return routing_key


def matching(shares: Mapping[str, float], task: str) -> float | None:
    """Return the share of the pattern that matches a task's name and is longest; None where none does."""
    found = [pattern for pattern in shares if fnmatchcase(task, pattern)]
    return shares[max(found, key=len)] if found else None


class Sides:
    """Decides where calls go; safe to use from any thread.

    Arguments:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._live = LiveShares(app)
        share = app.conf.ray_share
        self._share: Any = symbol_by_name(share) if isinstance(share, str) else share
        self._fails = app.conf.ray_out_of_reach == "raise"
        #: Guards ``_connecting``.
        self._lock = threading.Lock()
        self._connecting = False
        self._failed = False

    def share(self, task: str, headers: Mapping[str, Any]) -> float:
        """Return the share of a task's calls that go to Ray, from 0 to 1."""
        live = matching(self._live.current(), task)
        if live is not None:
            return live
        share = self._share
        if callable(share):
            return float(share(task, headers))
        if isinstance(share, Mapping):
            return matching(share, task) or 0.0
        return float(share)

    def to_ray(self, task: str, headers: Mapping[str, Any]) -> bool:
        """Return whether a call goes to Ray.

        Arguments:
            task: name of the task. What this process does not know stays with the broker: Ray might not, either.
            headers: of the message.
        """
        if headers.get("retries") and current_task:
            return session.installed()
        if task not in self._app._tasks:
            return False
        share = self.share(task, headers)
        if share < 1 and zlib.crc32(str(headers["id"]).encode()) >= share * 2**32:
            return False
        return self._fails or session.installed() or self._within_reach()

    def _within_reach(self) -> bool:
        """Return whether this process is connected, connecting the first time; later that is done in the background."""
        found = self._app._session
        if found is not None and found.client.connected:
            return True
        with self._lock:
            first = not self._failed and found is None
            if self._connecting:
                return False
            self._connecting = True
        if first:
            return self._connect()
        threading.Thread(target=self._connect_again, name="raycelery-connect", daemon=True).start()
        return False

    def _connect(self) -> bool:
        try:
            connected = bool(self._app.session.client.connected)
        except (RayCeleryError, OSError, RuntimeError) as exc:
            if not self._failed:
                logger.warning("calls go to the broker until the cluster can be reached: %s", exc)
            self._failed = True
            connected = False
        with self._lock:
            self._connecting = False
        if connected and self._failed:
            self._failed = False
            logger.warning("the cluster can be reached again: calls go to Ray as their shares say")
        return connected

    def _connect_again(self) -> None:
        if not self._failed:
            self._failed = True
            logger.warning("calls go to the broker until the cluster can be reached: the connection is lost")
        else:
            time.sleep(AGAIN_SECONDS)
        self._connect()
