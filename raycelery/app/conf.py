"""``app.conf`` with a memory and a check: a wrong ``ray_*`` setting is refused where it is written.

Celery looks a setting up in every layer under every spelling, eight times per message. The lookups are Celery's own;
only their answers are kept, until something is set.
"""

from __future__ import annotations

from typing import Any

from celery.app.utils import Settings
from celery.utils.collections import force_mapping

from raycelery.app.settings import check_settings

#: The pool by which Celery's worker executes on Ray.
BRIDGE_POOL = "raycelery.bridge:Pool"


class RememberingSettings(Settings):  # type: ignore[misc]
    """Celery's settings object, which remembers what was looked up and refuses what is wrong."""

    def __getitem__(self, key: str) -> Any:
        known = self.__dict__.get("_known")
        if known is None:
            known = self.__dict__["_known"] = {}
        try:
            return known[key]
        except KeyError:
            value = super().__getitem__(key)
            if key == "worker_pool" and value == "prefork" and self["ray_mode"] == "bridge":
                # What `celery worker` takes where no other pool was named.
                value = BRIDGE_POOL
            known[key] = value
            return value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Return a setting by the parts of its name; Celery does so for each result."""
        key = (namespace, name)
        try:
            return self.__dict__["_known"][key]
        except KeyError:
            value = super().find_value_for_key(name, namespace)
            self.__dict__.setdefault("_known", {})[key] = value
            return value

    def _forget(self) -> None:
        self.__dict__["_known"] = {}
        changed = self.__dict__.get("_on_change")
        if changed is not None:
            changed()

    def __setitem__(self, key: str, value: Any) -> None:
        check_settings({key: value}, self.prefix)
        super().__setitem__(key, value)
        self._forget()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._forget()

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Change settings."""
        check_settings(dict(*args, **kwargs), self.prefix)
        try:
            return super().update(*args, **kwargs)
        finally:
            self._forget()

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a change."""
        try:
            return super().pop(key, *default)
        finally:
            self._forget()

    def clear(self) -> None:
        """Remove all changes."""
        super().clear()
        self._forget()

    def add_defaults(self, d: Any) -> None:
        """Add a layer."""
        check_settings(force_mapping(d), self.prefix)
        super().add_defaults(d)
        self._forget()

    def swap_with(self, other: Any) -> None:
        """Take over another's layers."""
        super().swap_with(other)
        self._forget()
