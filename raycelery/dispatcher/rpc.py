"""What a dispatcher answers when a process asks: a method for each of :mod:`raycelery.protocol.questions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raycelery.dispatcher import steady
from raycelery.dispatcher.conversions import submission_of
from raycelery.dispatcher.monitoring.status import overview
from raycelery.protocol import questions
from raycelery.protocol.asking import Question
from raycelery.protocol.codec import encode
from raycelery.protocol.frames import UseTimeLimits
from raycelery.scheduler import events

if TYPE_CHECKING:
    from raycelery.dispatcher.bridge_jobs import BridgeJobs
    from raycelery.dispatcher.connection import Connection
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.journal import Journal
    from raycelery.dispatcher.monitoring.tools import Tools
    from raycelery.dispatcher.profiling import Profiling
    from raycelery.dispatcher.queries import Queries


class Rpc:
    """The questions that one dispatcher answers.

    Arguments:
        name: the application's.
        core: that is asked about, and changed.
        queries: reads it.
        bridge_jobs: knows the messages of bridges.
        tools: Celery's.
        profiling: is switched.
        journal: is removed where the application is given up.
        executors: the connections of those that there are.
    """

    def __init__(
        self,
        name: str,
        core: Core,
        queries: Queries,
        bridge_jobs: BridgeJobs,
        tools: Tools,
        profiling: Profiling,
        journal: Journal,
        executors: Mapping[int, Connection],
    ) -> None:
        self._name = name
        self._core = core
        self._queries = queries
        self._bridge_jobs = bridge_jobs
        self._tools = tools
        self._executors = executors
        q, store, definitions, outcomes = questions, core.store, core.definitions, queries.outcomes
        self._answers: dict[type[Question[Any]], Callable[[Any], Any]] = {
            q.Pending: lambda _: queries.pending(),
            q.Left: lambda _: queries.left(),
            q.Why: self._why,
            q.Messages: lambda asked: queries.messages(asked.place, asked.ids),
            q.Forgotten: lambda asked: queries.forgotten(asked.ids),
            q.Unknown: lambda asked: [one for one in asked.ids if queries.view.find(one) is None],
            q.Revoke: lambda asked: self._handle(events.Revoke(asked.ids, asked.terminate)),
            q.RevokeStamps: lambda asked: self._handle(events.RevokeStamps(asked.stamps, asked.terminate)),
            q.Purge: lambda asked: self._purge(asked.queue),
            q.Waits: lambda asked: queries.withdrawable(asked.queues, asked.but, asked.most),
            q.Withdraw: lambda asked: self._withdraw(asked.ids),
            q.Failures: lambda _: outcomes.failures(),
            q.Retry: lambda asked: outcomes.retry(asked.ids, asked.app),
            q.GetResult: lambda asked: store.meta(asked.task_id),
            q.Forget: lambda asked: store.forget(asked.task_id),
            q.GetValue: lambda asked: store.get(asked.key),
            q.SetValue: lambda asked: store.set(asked.key, asked.value, asked.expires, steady.now()),
            q.DeleteValue: lambda asked: store.delete(asked.key),
            q.SetRate: lambda asked: definitions.set_rate(asked.task, asked.per_second),
            q.SetLimit: lambda asked: definitions.set_limit(asked.name, asked.maximum),
            q.RestoreLimit: lambda asked: definitions.restore_limit(asked.name),
            q.SetTimeLimit: lambda asked: self._set_time_limit(asked.task, asked.soft, asked.hard),
            q.TimeLimits: lambda _: definitions.set_time_limits,
            q.Stats: lambda _: queries.stats(),
            q.Overview: lambda _: overview(self._name, queries, tools.control()),
            q.Respondents: lambda _: tools.control().respondents(),
            q.Measure: lambda asked: profiling.renew(asked.seconds),
            q.Measured: lambda asked: profiling.since(asked.after),
            q.GiveUp: lambda _: journal.remove(),
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

    def _handle(self, event: events.Event) -> None:
        self._core.scheduler.handle(event, steady.now())

    def _purge(self, queue: str | None) -> int:
        """Drop what waits, and count it."""
        messages = self._queries.view.purgeable(queue)
        self._handle(events.Purge(queue))
        for message in messages:
            self._core.release(message.seq)
        return len(messages)

    def _withdraw(self, ids: list[str]) -> list[str]:
        """Take messages that wait off the queues, and keep them as a value; the ids of those that were."""
        core = self._core
        if core.store.get(questions.WITHDRAWN) is not None:
            return []
        found = [message for one in ids for message in core.scheduler.view.find_all(one)]
        found = [message for message in found if core.withdrawable(message)]
        kept = [submission_of(message, ()) for message in found]
        for message in found:
            self._handle(events.Withdraw(message))
        if kept:
            core.store.set(questions.WITHDRAWN, encode(kept), None, steady.now())
        return [one.task_id for one in kept]

    def _set_time_limit(self, task: str, soft: float | None, hard: float | None) -> None:
        """Set a task's time limits in seconds, for messages that do not bring their own."""
        limits = self._core.definitions.set_time_limits
        limits[task] = (soft, hard)
        for message in self._queries.view.unfinished():
            if not message.at_executor and not message.bridged:
                self._core.apply_time_limit(message)
        for connection in self._executors.values():
            connection.send(UseTimeLimits(limits))

    def _why(self, asked: questions.Why) -> str:
        task_id, view = asked.task_id, self._queries.view
        message = view.find(task_id) or self._bridge_jobs.message_of(task_id)
        if message is not None:
            plane = self._tools.control()
            plane.nodes()
            return view.why(message, steady.now(), plane.name_of)
        meta = self._core.store.meta(task_id)
        if meta is not None:
            return f"It does not wait: its state is {meta.state}."
        return (
            "It is not known here: it was not submitted to this application, or it has ended and its result was "
            "dropped, or is kept by another result backend."
        )
