"""What processes have told the dispatcher before they speak of it: applications, code, lanes, limits and rates."""

from __future__ import annotations

import time
from typing import Any

from raycelery.scheduler import events
from raycelery.scheduler.model import Lane
from raycelery.scheduler.scheduler import Scheduler

Code = tuple[str, str, bytes, bool]


class Definitions:
    """Keeps what was defined, and tells the scheduler what concerns it.

    Arguments:
        scheduler: that knows of lanes, limits and rates.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        #: Pickled descriptions of applications.
        self.apps: dict[str, bytes] = {}
        #: Tasks that travel by value, by application: name, key, code, whether an import is preferred.
        self._codes: dict[str, list[Code]] = {}
        self._lanes: dict[str, Lane] = {}
        #: Limits and rates as they were defined.
        self.bounds: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        #: What remote control has set in their stead, by the same names.
        self.overridden: dict[tuple[Any, ...], Any] = {}

    def add(self, definition: tuple[Any, ...]) -> None:
        """Take a definition; again is harmless."""
        kind = definition[0]
        if kind == "app":
            if definition[1] not in self.apps:
                # Another program, or another release of it: what the others have warm would only hold CPUs.
                self._scheduler.handle(events.RetireOthers(definition[1]), time.time())
            self.apps[definition[1]] = definition[2]
        elif kind == "code":
            codes = self._codes.setdefault(definition[1], [])
            if all(definition[3] != key for _, key, _, _ in codes):
                codes.append(definition[2:])
        elif kind == "lane":
            self._lanes[definition[1].key] = definition[1]
            self._scheduler.handle(events.AddLane(definition[1]), time.time())
        elif kind in ("limit", "rate"):
            self.bounds[definition[:2]] = definition
            if definition[:2] not in self.overridden:
                self._set(*definition)

    def override(self, kind: str, name: str, value: Any) -> None:
        """Set a limit or a rate, whatever the application says from now on."""
        self.overridden[kind, name] = value
        self._set(kind, name, value)

    def restore(self, kind: str, name: str) -> None:
        """Let a limit or a rate be again what the application says."""
        self.overridden.pop((kind, name), None)
        self._set(*self.bounds.get((kind, name), (kind, name, None)))

    def _set(self, kind: str, name: str, value: Any) -> None:
        event = events.SetLimit(name, value) if kind == "limit" else events.SetRate(name, value)
        self._scheduler.handle(event, time.time())

    def all(self) -> list[tuple[Any, ...]]:
        """Return all that was defined, as it was."""
        apps = [("app", key, spec) for key, spec in self.apps.items()]
        codes = [("code", app, *code) for app, known in self._codes.items() for code in known]
        return [*apps, *codes, *(("lane", lane) for lane in self._lanes.values()), *self.bounds.values()]

    def codes_after(self, app: str, known: int) -> list[Code]:
        """Return the code that an executor of an application lacks, which knows so many already."""
        codes = self._codes.get(app)
        return [] if codes is None else codes[known:]
