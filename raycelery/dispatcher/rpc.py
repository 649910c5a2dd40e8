"""What a dispatcher answers when a process asks: each public method is a question that :meth:`Client.call` may name."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import psutil

from raycelery.protocol import framing
from raycelery.scheduler import events
from raycelery.scheduler.phases import MessagePhase

if TYPE_CHECKING:
    from raycelery.dispatcher.actor import Dispatcher
    from raycelery.scheduler.executor import ExecutorState
    from raycelery.scheduler.model import Message

_LOOKED_AT = 10_000


class Rpc:
    """The questions that one dispatcher answers.

    Of what bridges run, their own workers tell.

    Arguments:
        dispatcher: whose state they are about.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def pending(self) -> int:
        """Messages that are not finished."""
        return self._dispatcher.scheduler.view.pending

    def left(self) -> dict[str, Any]:
        """What is not finished: how much, how much of it runs or is due later and when, of which tasks, why one waits.

        Of very many messages the first ones are looked at for the tasks' names.
        """
        scheduler = self._dispatcher.scheduler.view
        stats = scheduler.stats()
        looked_at = list(itertools.islice(scheduler.unfinished(), _LOOKED_AT))
        waiting = next((message for message in looked_at if message.phase is MessagePhase.WAITING), None)
        return {
            "pending": scheduler.pending,
            "running": stats.running,
            "scheduled": stats.scheduled,
            "due": min((m.eta for m in scheduler.scheduled_messages() if m.eta is not None), default=0.0),
            "tasks": [name for name, _ in Counter(message.task for message in looked_at).most_common()],
            "why": scheduler.why(waiting, time.time()).rstrip(".")
            if waiting is not None and not stats.running
            else None,
        }

    def meta(self, task_id: str) -> tuple[str, bytes] | None:
        """State and payload of a task, or None."""
        return self._dispatcher.store.meta(task_id)

    def forget(self, task_id: str) -> None:
        """Drop a result."""
        self._dispatcher.store.forget(task_id)

    def get(self, key: str) -> bytes | None:
        """A value by key."""
        return self._dispatcher.store.get(key)

    def set(self, key: str, value: bytes, expires: float | None) -> None:
        """Keep a value."""
        self._dispatcher.store.set(key, value, expires, time.time())

    def delete(self, key: str) -> None:
        """Drop a value."""
        self._dispatcher.store.delete(key)

    def revoke(self, ids: list[str], terminate: bool) -> None:
        """Revoke messages by task id."""
        self._dispatcher.scheduler.handle(events.Revoke(ids, terminate), time.time())

    def unknown(self, ids: list[str]) -> list[str]:
        """Those of some task ids of which there is no message."""
        return [task_id for task_id in ids if self._dispatcher.scheduler.view.find(task_id) is None]

    def respondents(self) -> int:
        """How many will answer a remote control command that is meant for all."""
        return self._dispatcher.control().respondents()

    def revoked(self) -> list[str]:
        """Revoked ids that are remembered."""
        return self._dispatcher.scheduler.view.revocations()[0]

    def messages(self, place: str, ids: list[str] | None = None) -> list[dict[str, Any]]:
        """Messages that are "running", "next" (handed out, not begun), "waiting" or "eta"; anywhere if ""."""
        scheduler = self._dispatcher.scheduler.view
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
        scheduler = self._dispatcher.scheduler.view
        place = "eta" if message.phase is MessagePhase.SCHEDULED else "waiting"
        connection = None
        if message.at_executor:
            executor = scheduler.executors[message.executor_id]
            connection = self._dispatcher.executor_manager.connected.get(message.executor_id)
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
            "pid": connection.info.get("pid") if connection is not None and place == "running" else None,
        }

    def revoke_stamps(self, stamps: dict[str, Any], terminate: bool) -> None:
        """Revoke messages by stamped headers."""
        self._dispatcher.scheduler.handle(events.RevokeStamps(stamps, terminate), time.time())

    def purge(self, queue: str | None = None) -> int:
        """Drop what waits, and count it."""
        scheduler = self._dispatcher.scheduler
        messages = scheduler.view.purgeable(queue)
        scheduler.handle(events.Purge(queue), time.time())
        for message in messages:
            self._dispatcher.release(message.seq)
        return len(messages)

    def rate(self, task: str, per_second: float | None) -> None:
        """Set a task's rate limit, in runs per second, whatever the application says from now on."""
        self._dispatcher.definitions.override("rate", task, per_second)

    def limit(self, name: str, maximum: int | None) -> None:
        """Set a concurrency limit, whatever the application says from now on."""
        self._dispatcher.definitions.override("limit", name, maximum)

    def restore(self, kind: str, name: str) -> None:
        """Let a rate or a limit be again what the application says."""
        self._dispatcher.definitions.restore(kind, name)

    def time_limit(self, task: str, soft: float | None, hard: float | None) -> None:
        """Set a task's time limits in seconds, for messages that do not bring their own."""
        dispatcher = self._dispatcher
        dispatcher.definitions.overridden["time_limit", task] = (soft, hard)
        for message in dispatcher.scheduler.view.unfinished():
            if not message.at_executor and not message.bridged:
                self.apply_time_limit(message)
        for connection in dispatcher.executor_manager.connected.values():
            connection.send(framing.pack("limits", self.time_limits()))

    def time_limits(self) -> dict[str, tuple[float | None, float | None]]:
        """Soft and hard time limits that were set by :meth:`time_limit`, by task."""
        overridden = self._dispatcher.definitions.overridden
        return {key[1]: value for key, value in overridden.items() if key[0] == "time_limit"}

    def apply_time_limit(self, message: Message) -> None:
        """Give a message the hard time limit that was set for its task, unless it brings its own."""
        limits = self._dispatcher.definitions.overridden.get(("time_limit", message.task))
        if limits is not None and message.settle_reason is None:
            headers = pickle.loads(message.payload)[0]
            if not (headers.get("timelimit") or [None])[0]:
                message.time_limit = limits[1]

    def measure(self, seconds: float) -> None:
        """Have executors measure what they run for so long; 0: no longer."""
        self._dispatcher.profiling.renew(seconds)

    def measured(self, number: int) -> tuple[int, list[Any]]:
        """How many runs were measured, and those after the first ``number``."""
        return self._dispatcher.profiling.since(number)

    def why(self, task_id: str) -> str:
        """Why a task's message waits, or what has become of it, in one or two sentences."""
        dispatcher = self._dispatcher
        message = dispatcher.scheduler.view.find(task_id) or dispatcher.bridge_jobs.message_of(task_id)
        if message is not None:
            plane = dispatcher.control()
            plane.nodes()
            return dispatcher.scheduler.view.why(message, time.time(), plane.name_of)
        meta = dispatcher.store.meta(task_id)
        if meta is not None:
            return f"It does not wait: its state is {meta[0]}."
        return (
            "It is not known here: it was not submitted to this application, or it has ended and its result was "
            "dropped, or is kept by another result backend."
        )

    def failures(self) -> list[dict[str, Any]]:
        """The last failures, grouped by error; see :meth:`Outcomes.failures`."""
        return self._dispatcher.outcomes.failures()

    def retry(self, ids: list[str], app: str) -> dict[str, list[str]]:
        """Have tasks run once more that are among the last failures; see :meth:`Outcomes.retry`."""
        return self._dispatcher.outcomes.retry(ids, app)

    def give_up(self) -> None:
        """Let go of what was to outlive this dispatcher, which is about to be ended for good."""
        self._dispatcher.journal.remove()

    def overview(self) -> dict[str, Any]:
        """Everything that ``raycelery status`` and ``top`` show; see :mod:`raycelery.dispatcher.monitoring.status`."""
        from raycelery.dispatcher.monitoring.status import overview

        return overview(self._dispatcher)

    def stats(self) -> dict[str, Any]:
        """Counts of everything, and the memory of this process in bytes."""
        scheduler = self._dispatcher.scheduler.view
        stats = scheduler.stats()
        return {
            "waiting": stats.waiting,
            "scheduled": stats.scheduled,
            "running": stats.running,
            "executors": stats.executors,
            "pending": scheduler.pending,
            "outcomes": self._dispatcher.outcomes.by_task(),
            "results": len(self._dispatcher.store),
            "large_values": len(self._dispatcher.large_values),
            "result_bytes": self._dispatcher.store.bytes,
            "since": self._dispatcher.since,
            "clients": sum(c.info.get("role") in ("client", "bridge") for c in self._dispatcher.connections),
            "pid": os.getpid(),
            "rss": psutil.Process(os.getpid()).memory_info().rss,
            "executor_pids": {
                number: c.info.get("pid") for number, c in self._dispatcher.executor_manager.connected.items()
            },
            "log": list(scheduler.log)[-200:],
        }
