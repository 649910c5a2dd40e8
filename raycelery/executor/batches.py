"""Runs what bridges send: bundles of messages of a real broker, see raycelery.dispatcher.bridge_jobs.

Celery's own function for a pool's child runs each, so the result goes to the project's result backend as ever; what a
child would send back to its worker is reported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
from collections import deque
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.app.trace import fast_trace_task
from celery.exceptions import NotRegistered, Reject
from kombu.serialization import prepare_accept_content

from raycelery.client.connection import Client
from raycelery.errors import LEAVING, TaskNotRegistered
from raycelery.executor import ending
from raycelery.executor.output import OUTPUT
from raycelery.serialization import values

logger = logging.getLogger(__name__)

#: Reports may stay in the kernel this many seconds before it is made to send them.
REPORT_SECONDS = 0.002


class Bundle:
    """A bundle in this executor; the thread that reads may take back what the other has not begun.

    Arguments:
        seq: its number.
        quick: whether its jobs are expected to be short, so that nobody needs to hear that one has begun.
        jobs: number and payload of each.
    """

    def __init__(self, seq: int, quick: bool, jobs: list[tuple[int, bytes]]) -> None:
        self.seq = seq
        self.quick = quick
        self.jobs = deque(jobs)
        self.current: int | None = None

    def take_back(self) -> list[tuple[Any, ...]]:
        """Give up what was not begun, and return the reports that say so."""
        reports: list[tuple[Any, ...]] = []
        while True:
            try:
                index, _ = self.jobs.pop()
            except IndexError:
                break
            reports.append(("job", self.seq, index, ("unbegun",)))
        current = self.current
        if current is not None:
            reports.append(("job", self.seq, current, ("began", os.getpid())))
        return reports


class BundleRunner:
    """Runs bundles one after the other.

    Arguments:
        runner: the executor's, which knows the tasks and raises soft time limits.
        client: the executor's connection.
    """

    def __init__(self, runner: Any, client: Client) -> None:
        self._runner = runner
        self._client = client
        self._pid = os.getpid()
        self._accept = prepare_accept_content(runner.app.conf.accept_content)

    def run(self, bundle: Bundle) -> int:
        """Run what is in a bundle; return how many messages that were."""
        client, seq, jobs = self._client, bundle.seq, bundle.jobs
        count, began, done = 0, time.monotonic(), False
        flushed = began
        while True:
            try:
                index, payload = jobs.popleft()
            except IndexError:
                break
            bundle.current = index
            if not bundle.quick:
                client.report(("job", seq, index, ("began", self._pid)))
            event = self._outcome(seq, index, payload)
            bundle.current = None
            count += 1
            now = time.monotonic()
            more = bool(jobs) and now - flushed < REPORT_SECONDS
            if not more:
                flushed = now
            if jobs:
                client.report(("job", seq, index, event), more=more)
            else:
                done = True
                client.report(("job", seq, index, event), ("done", seq, now - began))
        if not done:  # the rest was taken back
            client.report(("done", seq, time.monotonic() - began))
        return count

    def _outcome(self, seq: int, index: int, payload: bytes) -> tuple[Any, ...]:
        runner = self._runner
        try:
            name, task_id, request, body, content_type, encoding, soft, hostname, *code = pickle.loads(payload)
            runner.current = task_id
            shadow = request.get("shadow") if request else None
            OUTPUT.begin((seq, index), task_id, shadow or name, bridged=True)
            if request is None:
                return self._called(body, soft, name)
            task = runner.tasks.find(name, *code)
            arguments = (name, task_id, request, body, content_type, encoding)
            where = (runner.app._tasks, self._accept, hostname)
            soft = soft or task.soft_time_limit
            if soft:
                with runner.soft_limit(soft, name):
                    failed, value, seconds = fast_trace_task(*arguments, _loc=where)
            else:
                failed, value, seconds = fast_trace_task(*arguments, _loc=where)
        except LEAVING:
            raise
        except TaskNotRegistered as exc:
            logger.error("a message cannot run: %s", exc)
            # For readers of the result that have Celery's classes only.
            return ("error", _pickled(_info_of(NotRegistered(*exc.args))), 0.0, self._pid)
        except BaseException as exc:  # what keeps a message from running is its failure, and ends no executor
            logger.error("a message cannot run: %s", exc)
            return ("error", _pickled(ExceptionInfo()), 0.0, self._pid)
        finally:
            runner.current = None
            OUTPUT.end()
        if not failed:
            return ("ok", value if isinstance(value, str) else str(value), seconds, self._pid)
        kind = "rejected" if isinstance(value.exception, Reject) else "failed"
        return (kind, _pickled(value), seconds, self._pid, ending.of(value)[0])

    def _called(self, call: bytes, soft: float | None, name: str) -> tuple[Any, ...]:
        """Make a call that is no message's, and return what it returns."""
        target, args, kwargs = pickle.loads(call)
        began = time.monotonic()
        with self._runner.soft_limit(soft, name) if soft else contextlib.nullcontext():
            value = target(*args, **kwargs)
        return ("ok", pickle.dumps(value, 5), time.monotonic() - began, self._pid)


def _info_of(exc: BaseException) -> ExceptionInfo:
    try:
        raise exc
    except BaseException:  # it is the one above
        return ExceptionInfo()


def _pickled(einfo: ExceptionInfo) -> bytes:
    """Pickle what Celery's ``Request`` is to be told of an error; the worker may not have the error's class."""
    exc = einfo.exception.exc if isinstance(einfo.exception, ExceptionWithTraceback) else einfo.exception
    return values.dumps_inline((exc, einfo.tb, einfo.traceback, einfo.internal))


class UnloadableBundles:
    """Fails what is in bundles with the reason why the application cannot be loaded.

    Arguments:
        error: that reason.
        client: the executor's connection.
    """

    def __init__(self, error: Exception, client: Client) -> None:
        self._error = error
        self._client = client

    def run(self, bundle: Bundle) -> int:
        """Fail what is in a bundle; return how many messages that were."""
        einfo = _pickled(_info_of(self._error))
        jobs = list(bundle.jobs)
        bundle.jobs.clear()
        reports = [("job", bundle.seq, index, ("error", einfo, 0.0, os.getpid())) for index, _ in jobs]
        self._client.report(*reports, ("done", bundle.seq, 0.0))
        return len(jobs)
