"""Celery's beat inside the cluster: a Ray actor that outlives whoever started it, one per application."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from raycelery import names
from raycelery.cluster.own_folder import OwnFolder
from raycelery.reasons import reason_of

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: Seconds for an actor to start and to load the application, and for its schedule to be saved when it ends.
START_SECONDS = 120.0
#: Seconds between looks at the schedule, at most.
LOOP_SECONDS = 5.0
STOP_SECONDS = 20.0


class Beat:
    """Runs an application's schedule; Ray starts it again, elsewhere if need be, when its process or node is lost.

    Arguments:
        spec: the pickled :class:`raycelery.app.spec.AppSpec`.
        scheduler: the scheduler's class as Celery takes it; None: the application's own choice.
        filename: where the schedule is kept, on the actor's node; None: in Ray's session folder, from where a beat
            that moves to another node does not take it along.
        level: of its log, which is among Ray's.
    """

    def __init__(self, spec: bytes, scheduler: str | None, filename: str | None, level: str) -> None:
        from celery.beat import Service

        from raycelery.executor import loading

        logging.basicConfig(level=level)
        logging.getLogger("celery").setLevel(level)
        app_spec = pickle.loads(spec)
        app = loading.load(app_spec, json.loads(app_spec.env or "{}"))
        app.producer.descriptions.adopt(app_spec)
        self._since = time.time()
        self._service = Service(
            app,
            # It looks for the wish to end as often.
            max_interval=min(app.conf.beat_max_loop_interval or LOOP_SECONDS, LOOP_SECONDS),
            scheduler_cls=scheduler or app.conf.beat_scheduler,
            schedule_filename=filename or self._filename(app_spec.dispatcher),
        )
        self._entries: dict[str, str] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self._thread.start()

    def _filename(self, name: str) -> str:
        # What Celery keeps there is pickled: it must be nobody else's.
        self._folder = OwnFolder(Path(ray._private.worker._global_node.get_session_dir_path()) / "raycelery")
        return self._folder.held(f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.beat")

    def _run(self) -> None:
        try:
            # The file of the schedule is used in the thread that opened it.
            scheduler = self._service.scheduler
            self._entries = {name: str(entry.schedule) for name, entry in scheduler.schedule.items()}
            self._ready.set()
            self._service.start()
        except BaseException:
            logger.exception("beat ended")
            # Ray starts it again: as under a supervisor, that may be all it takes.
            os._exit(1)

    def describe(self) -> dict[str, Any]:
        """Return what it does: where, since when, and its schedule's entries in words."""
        self._ready.wait(START_SECONDS)
        return {
            "node": ray.util.get_node_ip_address(),
            "pid": os.getpid(),
            "since": self._since,
            "scheduler": type(self._service.scheduler).__name__,
            "entries": self._entries,
        }

    def stop(self) -> None:
        """Save the schedule and end."""
        self._service.stop()
        self._thread.join(STOP_SECONDS)


def running(name: str) -> Any:
    """Return the handle of an application's beat, or None."""
    try:
        return ray.get_actor(f"raycelery-beat:{name}", namespace=names.NAMESPACE)
    except ValueError:
        return None


def start(app: Celery, scheduler: str | None, filename: str | None, level: str) -> dict[str, Any]:
    """Start an application's beat, in place of one that runs; return what it says of itself.

    Raises:
        ray.exceptions.RayError: it does not start, with the reason.
    """
    name = app.session.name
    stop(name)
    described = app.producer.descriptions.described()
    env = json.loads(described.env or "{}")
    actor = (
        ray.remote(Beat)
        .options(
            **({"runtime_env": env} if env else {}),
            name=f"raycelery-beat:{name}",
            namespace=names.NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=2,
        )
        .remote(pickle.dumps(described), scheduler, filename, level)
    )
    try:
        answer: dict[str, Any] = ray.get(actor.describe.remote(), timeout=START_SECONDS)
    except ray.exceptions.RayError:
        ray.kill(actor, no_restart=True)
        raise
    return answer


def stop(name: str) -> bool:
    """End an application's beat, its schedule saved; return whether there was one."""
    actor = running(name)
    if actor is None:
        return False
    try:
        ray.get(actor.stop.remote(), timeout=STOP_SECONDS)
    except ray.exceptions.RayError as exc:
        logger.warning("beat did not stop cleanly: %s", reason_of(exc))
    ray.kill(actor, no_restart=True)
    return True
