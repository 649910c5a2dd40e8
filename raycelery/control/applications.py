"""The applications of a cluster: each is a named Ray actor, its dispatcher, that outlives whoever started it."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import ray

from raycelery.client import session
from raycelery.client.connection import Client
from raycelery.control import beat
from raycelery.errors import DispatcherUnreachable, VersionMismatch
from raycelery.names import NAMESPACE
from raycelery.protocol.asking import Question
from raycelery.protocol.frames import Hello
from raycelery.protocol.questions import GiveUp

logger = logging.getLogger(__name__)
A = TypeVar("A")
_PREFIX = "raycelery:"
#: Seconds that a dispatcher has to answer.
PATIENCE_SECONDS = 20.0


def names() -> list[str]:
    """Return the names of the applications that have a dispatcher in the cluster that this process is connected to."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    own = (actor["name"] for actor in actors if actor["namespace"] == NAMESPACE)
    return sorted(name.removeprefix(_PREFIX) for name in own if name.startswith(_PREFIX))


def _dispatcher(name: str) -> Any:
    return ray.get_actor(f"{_PREFIX}{name}", namespace=NAMESPACE)


def ask(name: str, question: Question[A]) -> A:
    """Return the answer of an application's dispatcher; see :mod:`raycelery.protocol.questions`.

    Raises:
        DispatcherUnreachable: there is none of that name, or it does not answer.
    """
    try:
        dispatcher = _dispatcher(name)
    except ValueError as exc:
        raise DispatcherUnreachable(f"the dispatcher of {name} has ended") from exc
    client = Client(lambda: session.endpoint(dispatcher), Hello("observer"))
    try:
        return client.call(question, timeout=PATIENCE_SECONDS)
    finally:
        client.close()


def end(name: str) -> None:
    """End an application: its beat, its dispatcher with all that waits, and its executors with what they run.

    Messages that are not finished are lost, and so are results. A program that uses the application again starts it
    anew.
    """
    beat.stop(name)
    try:
        # Else the next dispatcher of that name would take up what this one has left.
        ask(name, GiveUp())
    except VersionMismatch as exc:
        # What it leaves is of its version, and the next one puts that aside.
        logger.info("ended all the same: %s", exc)
    finally:
        for actor in (f"{_PREFIX}{name}", f"raycelery-values:{name}"):
            try:
                ray.kill(ray.get_actor(actor, namespace=NAMESPACE), no_restart=True)
            except ValueError:
                pass  # there is none
