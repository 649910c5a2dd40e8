"""A dispatcher, as Celery's tools see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raycelery.dispatcher import steady
from raycelery.scheduler import events

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.queries import Queries
    from raycelery.protocol.asking import Change


@dataclass(frozen=True)
class Subject:
    """What tools look at: a dispatcher, to be read; and the few things that they may have it do.

    Arguments:
        queries: what can be read.
        core: likewise: limits and time limits.
        executors: the connections of those that there are.
        change: does what a question asks for as if a process had asked it, so that it lasts.
        on_change: called when there may be something for the scheduler to decide.
    """

    queries: Queries
    core: Core
    executors: Mapping[int, Connection]
    change: Callable[[Change[Any]], Any]
    on_change: Callable[[], None]

    def retire(self, executor_ids: list[int]) -> None:
        """Have executors end after what they run."""
        self.core.scheduler.handle(events.Retire(executor_ids), steady.now())
        self.on_change()
