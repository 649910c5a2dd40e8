"""An application with a receiver for every signal; each records what it was told in one file."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from celery import Task, signals
from celery.exceptions import Retry
from celery.utils.log import get_task_logger

from tests import records
from tests.tuned import tuned

#: Executors get the variables of that prefix, and so write where the test reads.
RECORDS = os.environ.setdefault(
    "CELERY_TEST_RECORDS", os.path.join(tempfile.gettempdir(), f"raycelery-signals-{os.getpid()}")
)

app = tuned("signalled")
logger = get_task_logger(__name__)


def note(signal: str, task_id: Any, **fields: Any) -> None:
    records.write(RECORDS, signal=signal, id=task_id, **fields)


def ours(task: Any) -> bool:
    return str(getattr(task, "name", task)).startswith("tests.signalled.")


@signals.before_task_publish.connect
def before_task_publish(sender: Any, headers: Any = None, body: Any = None, routing_key: Any = None, **_: Any) -> None:
    if ours(sender):
        headers["trace"] = f"trace of {headers['task']}"
        note("before_task_publish", headers["id"], queue=routing_key, arguments=len(body[0]))


@signals.after_task_publish.connect
def after_task_publish(sender: Any, headers: Any = None, **_: Any) -> None:
    if ours(sender):
        note("after_task_publish", headers["id"], trace=headers.get("trace"))


@signals.task_received.connect
def task_received(sender: Any, request: Any = None, **_: Any) -> None:
    if ours(request.name):
        note("task_received", request.id, humaninfo=request.humaninfo())


@signals.task_prerun.connect
def task_prerun(sender: Any, task_id: Any = None, task: Any = None, args: Any = None, **_: Any) -> None:
    if ours(sender):
        note("task_prerun", task_id, args=list(args), trace=getattr(task.request, "trace", None))


@signals.task_postrun.connect
def task_postrun(sender: Any, task_id: Any = None, state: Any = None, retval: Any = None, **_: Any) -> None:
    if ours(sender):
        note("task_postrun", task_id, state=state)


@signals.task_success.connect
def task_success(sender: Any, result: Any = None, **_: Any) -> None:
    if ours(sender):
        note("task_success", sender.request.id, result=result)


@signals.task_retry.connect
def task_retry(sender: Any, request: Any = None, reason: Any = None, **_: Any) -> None:
    if ours(sender):
        note("task_retry", request.id, reason=type(reason).__name__, is_retry=isinstance(reason, Retry))


@signals.task_failure.connect
def task_failure(sender: Any, task_id: Any = None, exception: Any = None, einfo: Any = None, **_: Any) -> None:
    if ours(sender):
        note("task_failure", task_id, exception=type(exception).__name__, traceback=bool(str(einfo.traceback)))


@signals.task_revoked.connect
def task_revoked(
    sender: Any, request: Any = None, terminated: Any = None, signum: Any = None, expired: Any = None, **_: Any
) -> None:
    if ours(sender):
        note("task_revoked", request.id, terminated=bool(terminated), expired=bool(expired))


@signals.task_unknown.connect
def task_unknown(sender: Any, name: Any = None, id: Any = None, **_: Any) -> None:
    if ours(name):
        note("task_unknown", id, name=name)


@signals.task_rejected.connect
def task_rejected(sender: Any, message: Any = None, exc: Any = None, **_: Any) -> None:
    note("task_rejected", None, exception=type(exc).__name__)


@signals.worker_process_init.connect
def worker_process_init(**_: Any) -> None:
    note("worker_process_init", None)


@signals.worker_process_shutdown.connect
def worker_process_shutdown(pid: Any = None, exitcode: Any = None, **_: Any) -> None:
    note("worker_process_shutdown", None, exitcode=exitcode)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def fail() -> None:
    raise ValueError("as asked")


@app.task(bind=True, max_retries=1)
def retry_once(self: Task) -> str:
    if self.request.retries == 0:
        raise self.retry(countdown=0.5)
    return "second"


@app.task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task(bind=True)
def trace_of(self: Task) -> Any:
    logger.info("said by the task")
    return getattr(self.request, "trace", None)


@app.task(time_limit=0.5)
def limited() -> None:
    time.sleep(60)
