"""More tasks of the sample application: they record what happens to them, or behave badly."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from typing import Any

import celery
from celery import Task, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from tests import records
from tests.sample import add, app

# -- canvas -----------------------------------------------------------------------------------------------------


@app.task(bind=True)
def stamps_of(self: Task) -> dict[str, Any]:
    return dict(self.request.stamps or {})


@app.task(bind=True)
def stamps_with(self: Task, others: list[Any]) -> list[Any]:
    return [*others, dict(self.request.stamps or {})]


@app.task(bind=True)
def growing(self: Task, value: int) -> int:
    self.add_to_chord(add.s(value, 0))
    return 0


@app.task(bind=True)
def replaced_by_group(self: Task, count: int) -> Any:
    return self.replace(group(add.s(i, i) for i in range(count)))


# -- retries and outcomes ---------------------------------------------------------------------------------------


@app.task(bind=True, max_retries=2)
def retry_forever(self: Task, path: str) -> None:
    records.write(path, retries=self.request.retries)
    try:
        raise ConnectionResetError("no model server")
    except ConnectionResetError as exc:
        raise self.retry(exc=exc, countdown=0) from exc


@app.task(bind=True, max_retries=1)
def retry_for_no_reason(self: Task) -> None:
    raise self.retry(countdown=0)


@app.task(bind=True)
def retry_with(self: Task, path: str, value: int, extra: str = "first") -> tuple[int, str]:
    records.write(path, value=value, extra=extra, id=self.request.id, time=time.time())
    if value == 1:
        raise self.retry(args=(path, 2), kwargs={"extra": "second"}, countdown=0.2)
    return value, extra


@app.task(bind=True)
def retry_elsewhere(self: Task) -> str:
    if self.request.retries == 0:
        raise self.retry(queue="second-try", countdown=0)
    return str(self.request.delivery_info["routing_key"])


@app.task(
    bind=True,
    autoretry_for=(OSError,),
    dont_autoretry_for=(FileNotFoundError,),
    retry_backoff=2,
    retry_backoff_max=3,
    retry_jitter=False,
    max_retries=3,
)
def backing_off(self: Task, path: str, kind: str = "OSError") -> None:
    records.write(path, retries=self.request.retries, eta=self.request.eta)
    raise {"OSError": OSError, "FileNotFoundError": FileNotFoundError, "ValueError": ValueError}[kind]("as asked")


@app.task(bind=True, autoretry_for=(ValueError,), retry_backoff=1, retry_jitter=True, max_retries=4)
def jittery(self: Task, succeed_at: int) -> int:
    if self.request.retries < succeed_at:
        raise ValueError("not yet")
    return int(self.request.retries)


@app.task(bind=True, max_retries=None)
def retry_slowly(self: Task, path: str) -> None:
    records.write(path, retries=self.request.retries)
    raise self.retry(countdown=0.5)


@app.task(bind=True, acks_late=True)
def reject_times(self: Task, path: str, times: int) -> list[bool]:
    records.write(path, redelivered=self.request.delivery_info["redelivered"])
    seen = records.read(path)
    if len(seen) <= times:
        raise Reject("again", requeue=True)
    return [one["redelivered"] for one in seen]


@app.task(bind=True)
def ignoring_after_state(self: Task) -> None:
    self.update_state(state="MINE", meta={"kept": True})
    raise Ignore()


# -- time limits and failures -----------------------------------------------------------------------------------


@app.task(bind=True)
def stubborn(self: Task, path: str, seconds: float = 60.0) -> str:
    """Says that it runs, then sleeps; a soft time limit is caught once."""
    records.write(path, task=self.request.id, begun=time.time())
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        records.write(path, task=self.request.id, soft=True)
        time.sleep(seconds)
    return "slept"


@app.task(soft_time_limit=0.3)
def soft_uncaught() -> None:
    time.sleep(60)


@app.task(
    soft_time_limit=0.3,
    autoretry_for=(SoftTimeLimitExceeded,),
    max_retries=1,
    retry_backoff=False,
    default_retry_delay=0,
)
def soft_retried(path: str) -> None:
    records.write(path)
    time.sleep(60)


#: Celery has one option for both until 5.7.
_RUN_AGAIN = {"acks_on_timeout" if celery.VERSION >= (5, 7) else "acks_on_failure_or_timeout": False}


@app.task(time_limit=0.5, acks_late=True, **_RUN_AGAIN)
def late_and_limited(path: str) -> str:
    records.write(path)
    if len(records.read(path)) == 1:
        time.sleep(60)
    return "in time"


@app.task
def pid() -> int:
    return os.getpid()


@app.task
def once(path: str, number: int, seconds: float = 0.0) -> int:
    """Acknowledged early, as tasks are by default: must run at most once."""
    records.write(path, number=number)
    time.sleep(seconds)
    return number


@app.task(acks_late=True, reject_on_worker_lost=True)
def at_least_once(path: str, number: int, seconds: float = 0.0) -> int:
    records.write(path, number=number)
    time.sleep(seconds)
    return number


@app.task(bind=True)
def die(self: Task, path: str) -> None:
    records.write(path, id=self.request.id)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def leave(code: int) -> None:
    sys.exit(code)


@app.task
def out_of_memory() -> None:
    raise MemoryError("no more")


@app.task
def interrupted() -> None:
    raise KeyboardInterrupt


@app.task(acks_late=True)
def late_death(path: str) -> None:
    records.write(path)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(retry_on_worker_lost=True, max_retries=2, default_retry_delay=0)
def retried_death(path: str, times: int) -> str:
    records.write(path)
    if len(records.read(path)) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@app.task
def old_errback(task_id: str) -> None:
    """An errback in Celery's old style, which is given the id only."""
    records.write(os.path.join(tempfile.gettempdir(), f"errback-{task_id}"))


# -- revocation and limits --------------------------------------------------------------------------------------


@app.task
def hold(held: str, go: str) -> str:
    """Say that it runs, and go on once there is a file."""
    with open(f"{held}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{held}.new", held)
    records.wait_for_file(go)
    return "released"


@app.task
def span(path: str, seconds: float = 0.05, **fields: Any) -> None:
    """Record when it ran."""
    begun = time.time()
    time.sleep(seconds)
    records.write(path, begun=begun, ended=time.time(), **fields)


@app.task(max_concurrency=2)
def narrow_span(path: str, seconds: float = 0.05) -> None:
    span(path, seconds)


@app.task(rate_limit="10/s")
def rated_span(path: str) -> None:
    span(path, 0.0)


@app.task
def usually_short(path: str, go: str | None = None) -> None:
    """Short but for those that are given a file to wait for."""
    if go is not None:
        records.write(path, waits=True)
        records.wait_for_file(go)
    records.write(path)


@app.task(max_concurrency=2)
def narrow_hold(held: str, go: str) -> str:
    return str(hold(held, go))
