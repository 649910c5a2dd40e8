"""The dispatchers of other applications in the cluster."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray

from raycelery.names import NAMESPACE

_PREFIX = "raycelery:"
#: Seconds between looks at who is there.
_LOOK_SECONDS = 2.0


class Peers:
    """Finds them.

    Arguments:
        name: of the application that looks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[Any] = []
        self._looked = float("-inf")

    def ask_all(self, question: str, *args: Any) -> list[Any]:
        """Call a method of all others, as they were found a little while ago; return references to what they return."""
        asked = []
        for actor in self._all():
            with contextlib.suppress(ValueError):  # it has ended meanwhile
                asked.append(self._call(actor, question, *args))
        return asked

    def _all(self) -> list[Any]:
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked, self._found = now, []
            for actor in ray.util.list_named_actors(all_namespaces=True):
                name = actor["name"].removeprefix(_PREFIX)
                if actor["namespace"] == NAMESPACE and name not in (actor["name"], self._name):
                    with contextlib.suppress(ValueError):  # it has ended meanwhile
                        self._found.append(self.get(name))
        return self._found

    def get(self, name: str) -> Any:
        """Return the handle of one.

        Raises:
            ValueError: it has ended.
        """
        return ray.get_actor(_PREFIX + name, namespace=NAMESPACE)

    def ask(self, name: str, question: str, *args: Any) -> Any:
        """Call a method of one, and return the reference to what it will return.

        Raises:
            ValueError: it has ended.
        """
        # Older versions of Ray call nothing through a handle that nobody holds.
        actor = self.get(name)
        return self._call(actor, question, *args)

    @staticmethod
    def _call(actor: Any, question: str, *args: Any) -> Any:
        try:
            return getattr(actor, question).remote(*args)
        except ray.exceptions.RayError:
            raise
        except Exception as exc:
            # Ray 2.60 raises a bare Exception for a handle of an actor that it has forgotten.
            raise ValueError(f"the dispatcher has ended: {exc}") from exc
