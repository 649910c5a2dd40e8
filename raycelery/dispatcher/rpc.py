"""What a dispatcher answers when a process asks: a method for each of :mod:`raycelery.protocol.questions`."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import psutil

from raycelery.protocol import messages, questions
from raycelery.protocol.frames import UseTimeLimits
from raycelery.protocol.questions import Question
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
        q = questions
        self._answers: dict[type[Question[Any]], Callable[[Any], Any]] = {
            q.Pending: lambda _: self.pending(),
            q.Left: lambda _: self.left(),
            q.Why: self._why,
            q.Messages: lambda asked: self.messages(asked.place, asked.ids),
            q.Unknown: lambda asked: self.unknown(asked.ids),
            q.Revoke: lambda asked: self.revoke(asked.ids, asked.terminate),
            q.RevokeStamps: lambda asked: self.revoke_stamps(asked.stamps, asked.terminate),
            q.Purge: lambda asked: self.purge(asked.queue),
            q.Failures: lambda _: self._dispatcher.outcomes.failures(),
            q.Retry: lambda asked: self._dispatcher.outcomes.retry(asked.ids, asked.app),
            q.GetResult: lambda asked: self._dispatcher.store.meta(asked.task_id),
            q.Forget: lambda asked: self._dispatcher.store.forget(asked.task_id),
            q.GetValue: lambda asked: self._dispatcher.store.get(asked.key),
            q.SetValue: self._set_value,
            q.DeleteValue: lambda asked: self._dispatcher.store.delete(asked.key),
            q.SetRate: lambda asked: self._dispatcher.definitions.set_rate(asked.task, asked.per_second),
            q.SetLimit: lambda asked: self._dispatcher.definitions.set_limit(asked.name, asked.maximum),
            q.RestoreLimit: lambda asked: self._dispatcher.definitions.restore_limit(asked.name),
            q.SetTimeLimit: lambda asked: self.time_limit(asked.task, asked.soft, asked.hard),
            q.TimeLimits: lambda _: self._dispatcher.definitions.set_time_limits,
            q.Stats: lambda _: self.stats(),
            q.Overview: lambda _: self.overview(),
            q.Respondents: lambda _: self._dispatcher.control().respondents(),
            q.Measure: lambda asked: self._dispatcher.profiling.renew(asked.seconds),
            q.Measured: lambda asked: self._dispatcher.profiling.since(asked.after),
            q.GiveUp: lambda _: self._dispatcher.journal.remove(),
        }

    def answer(self, question: Question[Any]) -> Any:
        """Return the answer to a question.

        Raises:
            ValueError: it is one that is not answered here.
        """
        handler = self._answers.get(type(question))
        if handler is None:
            raise ValueError(f"the dispatcher does not answer {type(question).__name__} here")
        return handler(question)

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

    def _set_value(self, asked: questions.SetValue) -> None:
        self._dispatcher.store.set(asked.key, asked.value, asked.expires, time.time())

    def revoke(self, ids: list[str], terminate: bool) -> None:
        """Revoke messages by task id."""
        self._dispatcher.scheduler.handle(events.Revoke(ids, terminate), time.time())

    def unknown(self, ids: list[str]) -> list[str]:
        """Those of some task ids of which there is no message."""
        return [task_id for task_id in ids if self._dispatcher.scheduler.view.find(task_id) is None]

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
            "pid": connection.info.pid if connection is not None and place == "running" else None,
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

    def time_limit(self, task: str, soft: float | None, hard: float | None) -> None:
        """Set a task's time limits in seconds, for messages that do not bring their own."""
        dispatcher = self._dispatcher
        dispatcher.definitions.set_time_limits[task] = (soft, hard)
        for message in dispatcher.scheduler.view.unfinished():
            if not message.at_executor and not message.bridged:
                self.apply_time_limit(message)
        for connection in dispatcher.executor_manager.connected.values():
            connection.send(UseTimeLimits(dispatcher.definitions.set_time_limits))

    def apply_time_limit(self, message: Message) -> None:
        """Give a message the hard time limit that was set for its task, unless it brings its own."""
        limits = self._dispatcher.definitions.set_time_limits.get(message.task)
        if limits is None or message.settle_reason is not None:
            return
        if not messages.opened(message.payload).headers.time_limit:
            message.time_limit = limits[1]

    def _why(self, asked: questions.Why) -> str:
        dispatcher, task_id = self._dispatcher, asked.task_id
        message = dispatcher.scheduler.view.find(task_id) or dispatcher.bridge_jobs.message_of(task_id)
        if message is not None:
            plane = dispatcher.control()
            plane.nodes()
            return dispatcher.scheduler.view.why(message, time.time(), plane.name_of)
        meta = dispatcher.store.meta(task_id)
        if meta is not None:
            return f"It does not wait: its state is {meta.state}."
        return (
            "It is not known here: it was not submitted to this application, or it has ended and its result was "
            "dropped, or is kept by another result backend."
        )

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
            "clients": sum(c.info.role in ("client", "bridge") for c in self._dispatcher.connections),
            "pid": os.getpid(),
            "rss": psutil.Process(os.getpid()).memory_info().rss,
            "executor_pids": {
                executor_id: c.info.pid for executor_id, c in self._dispatcher.executor_manager.connected.items()
            },
            "log": list(scheduler.log)[-200:],
        }
