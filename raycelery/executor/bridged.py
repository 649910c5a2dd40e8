"""Messages of a bridge: the worker that consumes the broker keeps Celery's books of them.

They run as in a child of Celery's prefork pool: the result goes to the project's result backend, and what a child would
send back to its worker is reported, see ``celery.app.trace.fast_trace_task``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import NotRegistered
from kombu.serialization import loads as kombu_loads

from raycelery.errors import LEAVING, TaskNotRegistered
from raycelery.executor import ending
from raycelery.executor.output import OUTPUT
from raycelery.executor.runner import Runner, TaskMessage
from raycelery.executor.soft_limit import soft_limit
from raycelery.protocol import messages
from raycelery.protocol.frames import BridgeTask
from raycelery.protocol.messages import BridgedCall, BridgedTask
from raycelery.protocol.reports import (
    BatchReport,
    Began,
    Called,
    CannotRun,
    ExecutorEvent,
    Raised,
    Rejected,
    Report,
    Returned,
)
from raycelery.serialization import values

logger = logging.getLogger(__name__)


class BridgedMessage(TaskMessage):
    """A message of a bridge's batch: the call of a task, or of another function that a task's ``Strategy`` calls.

    Arguments:
        seq: the scheduler's number of the batch.
        index: of the message in the batch.
        payload: what the bridge tells the executor, encoded.
        quick: whether nobody needs to hear that it has begun.
    """

    def __init__(self, seq: int, index: int, payload: bytes, quick: bool) -> None:
        self._seq = seq
        self._index = index
        self._payload = payload
        self._pid = os.getpid()
        self._event: ExecutorEvent
        if not quick:
            self.began = BatchReport(seq, index, Began(self._pid))

    def open(self) -> None:
        self._sent = sent = messages.bridged.decode(self._payload)
        self.name, self.task_id, self.soft_limit = sent.task, sent.task_id, sent.soft_limit
        shown = self.name
        if isinstance(sent, BridgedTask):
            self.module, self.code = sent.module, sent.code
            self.request, self._body = pickle.loads(sent.request)
            shown = self.request.get("shadow") or self.name
            self.request.update(hostname=sent.hostname, is_eager=False)
        OUTPUT.begin(None, self.task_id, shown, BridgeTask(self._seq, self._index))

    def run(self, runner: Runner) -> None:
        try:
            if isinstance(self._sent, BridgedCall):
                self._call(runner, self._sent)
            else:
                super().run(runner)
        except LEAVING:
            raise
        except BaseException as exc:  # what keeps a message from running is its failure, and ends no executor
            self.fail(exc)

    def _call(self, runner: Runner, sent: BridgedCall) -> None:
        target, args, kwargs = pickle.loads(sent.call)
        began = time.monotonic()
        soft = self.soft_limit
        with soft_limit(runner.client, soft, self.on_soft_limit) if soft else contextlib.nullcontext():
            value = target(*args, **kwargs)
        self._event = Called(pickle.dumps(value, 5), time.monotonic() - began, self._pid)

    def decode(self, accept: Any) -> Callable[[], tuple[Any, Any]]:
        body, sent = self._body, self._sent
        assert isinstance(sent, BridgedTask)
        if sent.content_type:
            body = kombu_loads(body, sent.content_type, sent.content_encoding, accept=accept)
        args, kwargs, embed = body
        self.request.update(embed or {})
        return lambda: (args, kwargs)

    def prepare(self, task: Any) -> None:
        """Do nothing: the books are the worker's."""

    def begin(self, task: Any) -> bool:
        return True

    def end(self, result: Any, seconds: float) -> None:
        retval, info, runtime, returned = result
        if info is None:
            returned = returned if isinstance(returned, str) else str(returned)
            self._event = Returned(ending.sound(returned), runtime, self._pid)
            return
        # Celery's tracer tells how long a task ran only where it returned.
        outcome = ending.of(retval)[0]
        if outcome == "rejected":
            self._event = Rejected(_pickled(retval), seconds, self._pid)
        else:
            self._event = Raised(_pickled(retval), seconds, self._pid, outcome)

    def fail(self, exc: BaseException) -> None:
        logger.error("a message cannot run: %s", exc)
        self.refuse(exc)

    def refuse(self, exc: BaseException) -> None:
        if isinstance(exc, TaskNotRegistered):
            exc = NotRegistered(*exc.args)  # for readers of the result that have Celery's classes only
        self._event = CannotRun(_pickled(ending.einfo_of(exc)), self._pid)

    def report(self) -> Report:
        return BatchReport(self._seq, self._index, self._event)


def _pickled(einfo: ExceptionInfo) -> bytes:
    """Pickle what Celery's ``Request`` is to be told of an error; the worker may not have the error's class."""
    exc = einfo.exception.exc if isinstance(einfo.exception, ExceptionWithTraceback) else einfo.exception
    return values.dumps_inline((exc, einfo.tb, einfo.traceback, einfo.internal))
