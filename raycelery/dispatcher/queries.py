"""What can be read of a dispatcher: what waits, runs, has ended, and counts of everything."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import psutil

from raycelery.dispatcher import steady
from raycelery.scheduler.phases import MessagePhase

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.outcomes import Outcomes
    from raycelery.scheduler.executor import ExecutorState
    from raycelery.scheduler.model import Message
    from raycelery.scheduler.view import View

_LOOKED_AT = 10_000


class Queries:
    """Reads one dispatcher's state; changes nothing.

    Of what bridges run, their own workers tell.

    Arguments:
        core: what is known.
        outcomes: what has ended.
        executors: the connections of those that there are.
        connections: of all processes.
        since: when the dispatcher was started, in seconds since the epoch.
    """

    def __init__(
        self,
        core: Core,
        outcomes: Outcomes,
        executors: Mapping[int, Connection],
        connections: Collection[Connection],
        since: float,
    ) -> None:
        self._core = core
        self._executors = executors
        self._connections = connections
        self.outcomes = outcomes
        self.since = since

    @property
    def view(self) -> View:
        """The scheduler's."""
        return self._core.scheduler.view

    def pending(self) -> int:
        """Messages that are not finished."""
        return self.view.pending

    def left(self) -> dict[str, Any]:
        """What is not finished: how much, how much of it runs or is due later and when, of which tasks, why one waits.

        Of very many messages the first ones are looked at for the tasks' names.
        """
        scheduler = self.view
        stats = scheduler.stats()
        looked_at = list(itertools.islice(scheduler.unfinished(), _LOOKED_AT))
        waiting = next((message for message in looked_at if message.phase is MessagePhase.WAITING), None)
        return {
            "pending": scheduler.pending,
            "running": stats.running,
            "scheduled": stats.scheduled,
            "due": min((m.eta for m in scheduler.scheduled_messages() if m.eta is not None), default=0.0),
            "tasks": [name for name, _ in Counter(message.task for message in looked_at).most_common()],
            "why": scheduler.why(waiting, steady.now()).rstrip(".")
            if waiting is not None and not stats.running
            else None,
        }

    def forgotten(self, ids: list[str]) -> list[str]:
        """Those of some task ids of which there is neither a message nor a result."""
        return [one for one in ids if self.view.find(one) is None and self._core.store.meta(one) is None]

    def withdrawable(self, queues: list[str], but: list[str], most: int) -> list[str]:
        """Ids of the tasks whose messages wait and could be withdrawn: of some queues, without some, not too many."""
        found, left_out = [], set(but)
        for message in self.view.purgeable(None):
            if queues and message.queue not in queues:
                continue
            if message.id not in left_out and self._core.withdrawable(message):
                found.append(message.id)
                if len(found) >= most:
                    break
        return found

    def revoked(self) -> list[str]:
        """Revoked ids that are remembered."""
        return self.view.revocations()[0]

    def messages(self, place: str, ids: list[str] | None = None) -> list[dict[str, Any]]:
        """Messages that are "running", "next" (handed out, not begun), "waiting" or "eta"; anywhere if ""."""
        scheduler = self.view
        if ids is None and place != "eta":
            return self.given(scheduler.executors.values(), place)
        found = (
            scheduler.scheduled_messages() if ids is None else [m for m in map(scheduler.find, ids) if m is not None]
        )
        described = [
            self._describe(message) for message in found if message.settle_reason is None and not message.bridged
        ]
        return [one for one in described if not place or one["place"] == place]

    def given(self, executors: Iterable[ExecutorState], place: str) -> list[dict[str, Any]]:
        """Messages that some executors are "running", or were given and have not begun ("next")."""
        found = (message for executor in executors for message in executor.outstanding.values())
        described = [
            self._describe(message) for message in found if message.settle_reason is None and not message.bridged
        ]
        return [one for one in described if not place or one["place"] == place]

    def _describe(self, message: Message) -> dict[str, Any]:
        scheduler = self.view
        place = "eta" if message.phase is MessagePhase.SCHEDULED else "waiting"
        connection = None
        if message.at_executor:
            executor = scheduler.executors[message.executor_id]
            connection = self._executors.get(message.executor_id)
            place = "running" if executor.running() is message else "next"
        return {
            "id": message.id,
            "payload": message.payload,
            "place": place,
            "eta": message.eta,
            "since": message.assigned,
            "deliveries": message.deliveries,
            "executor": message.executor_id if message.at_executor else 0,
            "task": message.task,
            "queue": message.queue,
            "pid": connection.info.pid if connection is not None and place == "running" else None,
        }

    def stats(self) -> dict[str, Any]:
        """Counts of everything, and the memory of this process in bytes."""
        scheduler = self.view
        stats = scheduler.stats()
        return {
            "waiting": stats.waiting,
            "scheduled": stats.scheduled,
            "running": stats.running,
            "executors": stats.executors,
            "pending": scheduler.pending,
            "outcomes": self.outcomes.by_task(),
            "results": len(self._core.store),
            "large_values": len(self._core.large_values),
            "result_bytes": self._core.store.bytes,
            "since": steady.wall(self.since),
            "clients": sum(c.info.role in ("client", "bridge") for c in self._connections),
            "pid": os.getpid(),
            "rss": psutil.Process(os.getpid()).memory_info().rss,
            "executor_pids": {executor_id: c.info.pid for executor_id, c in self._executors.items()},
            "log": list(scheduler.log)[-200:],
        }
