"""All concurrency limits and rate limits, and what counts against them."""

from __future__ import annotations

from raycelery.scheduler.gates import Bounds, Limit, Rate
from raycelery.scheduler.model import Counted, Message
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn


class Limits:
    """All concurrency limits and rate limits, and what counts against them.

    Arguments:
        turn: told of limits that have room again.
        timers: for rates whose next token is due.
    """

    def __init__(self, turn: Turn, timers: Timers) -> None:
        self._turn = turn
        self._timers = timers
        self._token_due = Kind(self._on_token, self._awaits_token)
        self.limits: dict[str, Limit] = {}
        self.rates: dict[str, Rate] = {}
        self.app = self.limit("app")

    # -- what is bounded ----------------------------------------------------------------------------------------

    def limit(self, name: str) -> Limit:
        """Return the limit of that name, unlimited if none was set."""
        found = self.limits.get(name)
        if found is None:
            found = self.limits[name] = Limit(name)
        return found

    def bounds(self, queue: str, task: str) -> Bounds:
        """Return what bounds a task in a queue."""
        return self.app, self.limit(f"queue:{queue}"), self.limit(f"task:{task}")

    def set_limit(self, name: str, maximum: int | None) -> None:
        """Set the most messages that run at once under a name; None: no limit."""
        limit = self.limit(name)
        limit.maximum = maximum
        if limit.parked:
            self._turn.roomy[limit] = None

    def set_rate(self, task: str, per_second: float | None) -> Rate | None:
        """Set a task's rate limit in runs per second, None lifts it; return the one that there is no more."""
        rate = self.rates.get(task)
        if rate is None:
            if per_second:
                self.rates[task] = Rate(task, per_second)
            return None
        if rate.timer is not None:
            rate.timer = None
            self._timers.cancelled()
        if not per_second:
            del self.rates[task]
            self._turn.roomy.pop(rate, None)
            return rate
        rate.per_second = per_second
        if rate.parked:
            self.await_token(rate)
        return None

    # -- what counts --------------------------------------------------------------------------------------------

    def count(self, message: Message, bounds: Bounds) -> None:
        """Count a message that runs."""
        message.counted = Counted.EVERYWHERE
        for limit in bounds:
            limit.used += 1
        if self.rates and (rate := self.rates.get(message.task)) is not None:
            rate.last = self._turn.now

    def uncount(self, message: Message, bounds: Bounds) -> None:
        """Count it no more."""
        self._give_back(bounds if message.counted is Counted.EVERYWHERE else bounds[2:])
        message.counted = Counted.NOWHERE

    def count_task_only(self, message: Message, bounds: Bounds) -> None:
        """Give its places in application and queue back while it waits for its subtasks, which may need them.

        It keeps its task's: or a recursion would know no bounds.
        """
        if message.counted is Counted.EVERYWHERE:
            message.counted = Counted.TASK
            self._give_back(bounds[:2])

    def count_again(self, message: Message, bounds: Bounds) -> None:
        """Count it everywhere again, though a limit may be exceeded by that: it runs."""
        if message.counted is Counted.TASK:
            message.counted = Counted.EVERYWHERE
            for limit in bounds[:2]:
                limit.used += 1

    def _give_back(self, limits: tuple[Limit, ...]) -> None:
        for limit in limits:
            limit.used -= 1
            if limit.parked:
                self._turn.roomy[limit] = None

    # -- tokens of rates ----------------------------------------------------------------------------------------

    def await_token(self, rate: Rate) -> None:
        """Have a rate looked at when it has a token."""
        if rate.timer is None:
            rate.timer = rate.next
            self._timers.add(rate.timer, self._token_due, rate.name, rate.timer)

    def _awaits_token(self, task: str, token: float) -> bool:
        rate = self.rates.get(task)
        return rate is not None and rate.timer == token

    def _on_token(self, task: str, token: float) -> None:
        rate = self.rates[task]
        rate.timer = None
        self._turn.roomy[rate] = None
