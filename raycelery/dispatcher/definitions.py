"""What processes have told the dispatcher before they speak of it: applications, code, lanes, limits and rates."""

from __future__ import annotations

from raycelery.dispatcher import steady
from raycelery.protocol import questions
from raycelery.protocol.definitions import (
    DefineApplication,
    DefineCode,
    DefineLane,
    DefineLimit,
    DefineRate,
    Definition,
)
from raycelery.scheduler import events
from raycelery.scheduler.model import Lane
from raycelery.scheduler.scheduler import Scheduler


class Definitions:
    """Keeps what was defined, and tells the scheduler what concerns it.

    Arguments:
        scheduler: that knows of lanes, limits and rates.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        #: How executors load applications, by key.
        self.apps: dict[str, DefineApplication] = {}
        #: Tasks that travel by value, by application.
        self._codes: dict[str, list[DefineCode]] = {}
        self._lanes: dict[str, DefineLane] = {}
        #: Limits and rates as the application defined them.
        self.limits: dict[str, DefineLimit] = {}
        self._rates: dict[str, DefineRate] = {}
        #: What remote control has set in their stead, and soft and hard time limits, by the same names.
        self.set_limits: dict[str, int | None] = {}
        self.set_rates: dict[str, float | None] = {}
        self.set_time_limits: dict[str, tuple[float | None, float | None]] = {}

    def add(self, definition: Definition) -> None:
        """Take a definition; again is harmless."""
        match definition:
            case DefineApplication(key):
                if key not in self.apps:
                    # Another program, or another release of it: what the others have warm would only hold CPUs.
                    self._scheduler.handle(events.RetireOthers(key), steady.now())
                self.apps[key] = definition
            case DefineCode():
                codes = self._codes.setdefault(definition.app, [])
                if all(definition.key != code.key for code in codes):
                    codes.append(definition)
            case DefineLane():
                self._lanes[definition.key] = definition
                self._scheduler.handle(events.AddLane(_lane(definition)), steady.now())
            case DefineLimit(name, maximum):
                self.limits[name] = definition
                if name not in self.set_limits:
                    self._scheduler.handle(events.SetLimit(name, maximum), steady.now())
            case DefineRate(task, per_second):
                self._rates[task] = definition
                if task not in self.set_rates:
                    self._scheduler.handle(events.SetRate(task, per_second), steady.now())

    def set_limit(self, name: str, maximum: int | None) -> None:
        """Set a limit, whatever the application says from now on."""
        self.set_limits[name] = maximum
        self._scheduler.handle(events.SetLimit(name, maximum), steady.now())

    def restore_limit(self, name: str) -> None:
        """Let a limit be again what the application says."""
        self.set_limits.pop(name, None)
        said = self.limits.get(name)
        self._scheduler.handle(events.SetLimit(name, None if said is None else said.maximum), steady.now())

    def set_rate(self, task: str, per_second: float | None) -> None:
        """Set a rate, whatever the application says from now on."""
        self.set_rates[task] = per_second
        self._scheduler.handle(events.SetRate(task, per_second), steady.now())

    def all(self) -> list[Definition]:
        """Return all that was defined, as it was."""
        codes = [code for known in self._codes.values() for code in known]
        return [*self.apps.values(), *codes, *self._lanes.values(), *self.limits.values(), *self._rates.values()]

    def changes(self) -> list[questions.SetLimit | questions.SetRate | questions.SetTimeLimit]:
        """Return what remote control has set."""
        return [
            *(questions.SetLimit(name, maximum) for name, maximum in self.set_limits.items()),
            *(questions.SetRate(task, per_second) for task, per_second in self.set_rates.items()),
            *(questions.SetTimeLimit(task, soft, hard) for task, (soft, hard) in self.set_time_limits.items()),
        ]

    def codes_after(self, app: str, known: int) -> list[DefineCode]:
        """Return the code that an executor of an application lacks, which knows so many already."""
        codes = self._codes.get(app)
        return [] if codes is None else codes[known:]


def _lane(definition: DefineLane) -> Lane:
    one = definition
    return Lane(key=one.key, request=one.request, app=one.app, env=one.env, one_shot=one.one_shot, driver=one.driver)
