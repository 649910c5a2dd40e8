"""The applications of a cluster: each is a named Ray actor, its dispatcher, that outlives whoever started it."""

from __future__ import annotations

from typing import Any

import ray

from raycelery.client import session
from raycelery.client.connection import Client
from raycelery.control import beat
from raycelery.errors import DispatcherUnreachable
from raycelery.names import NAMESPACE

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


def ask(name: str, method: str) -> Any:
    """Return the answer of an application's dispatcher; see :class:`raycelery.dispatcher.rpc.Rpc`.

    Raises:
        DispatcherUnreachable: there is none of that name, or it does not answer.
    """
    try:
        dispatcher = _dispatcher(name)
    except ValueError as exc:
        raise DispatcherUnreachable(f"the dispatcher of {name} has ended") from exc
    client = Client(lambda: session.endpoint(dispatcher), {"role": "observer"})
    try:
        return client.call(method, timeout=PATIENCE_SECONDS)
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
        ask(name, "give_up")
    finally:
        for actor in (f"{_PREFIX}{name}", f"raycelery-values:{name}"):
            try:
                ray.kill(ray.get_actor(actor, namespace=NAMESPACE), no_restart=True)
            except ValueError:
                pass  # there is none
