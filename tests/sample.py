"""A Celery project as the tests' producers and executors import it."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.signals import worker_process_init
from celery.utils.log import get_task_logger

from raycelery import Celery
from tests.records import wait_for_file

app = Celery("sample", broker="redis://nowhere.invalid:1/0", backend="redis://nowhere.invalid:1/1")
app.conf.accept_content = ["json", "pickle"]
logger = get_task_logger(__name__)

LOADED: list[str] = []


@worker_process_init.connect
def load_model(**_: Any) -> None:
    LOADED.append("model")


class ModelError(Exception):
    """An error of the project's own."""

    def __init__(self, zone: str, code: int) -> None:
        super().__init__(zone, code)
        self.zone, self.code = zone, code


@app.task
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task
def tsum(values: list[Any]) -> Any:
    return sum(values)


@app.task
def identity(value: Any) -> Any:
    return value


@app.task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.task
def touch(path: str, seconds: float = 0.0) -> str:
    """Leave a line in a file: what ran, and how often."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {time.time()}\n")
    time.sleep(seconds)
    return path


@app.task
def fail(zone: str, code: int) -> None:
    raise ModelError(zone, code)


@app.task(bind=True)
def request_of(self: Task) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "group": request.group,
        "retries": request.retries,
        "hostname": request.hostname,
        "delivery_info": request.delivery_info,
        "headers": request.headers,
        "args": request.args,
        "called_directly": request.called_directly,
        "pid": os.getpid(),
        "thread": threading.current_thread() is threading.main_thread(),
        "loaded": list(LOADED),
        "eta": request.eta,
        "expires": request.expires,
        "timelimit": request.timelimit,
        "correlation_id": request.correlation_id,
    }


@app.task(bind=True, max_retries=5)
def retry_until(self: Task, succeed_at: int) -> int:
    if self.request.retries < succeed_at:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@app.task(bind=True, autoretry_for=(ModelError,), retry_backoff=0.05, retry_jitter=False, max_retries=2)
def autoretry(self: Task, succeed_at: int) -> int:
    if self.request.retries < succeed_at:
        raise ModelError("EWR", self.request.retries)
    return int(self.request.retries)


@app.task(bind=True)
def progress(self: Task, path: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 3, "of": 10})
    wait_for_file(path)
    return "done"


@app.task(bind=True)
def replaced(self: Task, count: int) -> Any:
    return self.replace(tsum.s([1] * count))


@app.task(bind=True)
def fan_out(self: Task, count: int) -> Any:
    from celery import chord

    return self.replace(chord([add.s(i, i) for i in range(count)], tsum.s()))


@app.task(bind=True)
def parent(self: Task, count: int) -> list[int]:
    results = [add.delay(i, 1) for i in range(count)]
    return [result.get(disable_sync_subtasks=False) for result in results]


@app.task(bind=True)
def nested(self: Task, depth: int) -> int:
    if depth == 0:
        return 0
    return 1 + nested.delay(depth - 1).get(disable_sync_subtasks=False)


@app.task(soft_time_limit=0.3)
def soft_limited() -> str:
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "not limited"


@app.task(time_limit=0.5)
def hard_limited() -> None:
    time.sleep(30)


@app.task
def ignoring() -> None:
    raise Ignore()


@app.task
def rejecting() -> None:
    raise Reject("no", requeue=False)


@app.task(bind=True, acks_late=True)
def reject_once(self: Task, path: str) -> bool:
    if not os.path.exists(path):
        open(path, "w").close()
        raise Reject("again", requeue=True)
    return bool(self.request.delivery_info["redelivered"])


@app.task
def suicide() -> None:
    os.kill(os.getpid(), 9)


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(path: str) -> str:
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), 9)
    return "survived"


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_always() -> None:
    os.kill(os.getpid(), 9)


@app.task
def note_error(task_id: str) -> None:
    """An errback in Celery's old style; the new style takes request, exc and traceback."""
    path = os.environ.get("SAMPLE_ERRORS")
    if path:
        with open(path, "a") as file:
            file.write(f"{task_id}\n")


@app.task
def write(text: Any, path: str) -> str:
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return path


@app.task
def write_error(request: Any, exc: BaseException, traceback: Any, path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{request.id} {type(exc).__name__} {exc}\n")


class Recording(Task):
    """A base class with every handler."""

    abstract = True

    def note(self, what: str) -> None:
        path = self.request.headers and self.request.headers.get("path") if self.request else None
        if path:
            with open(path, "a") as file:
                file.write(f"{what}\n")

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.note("before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.note(f"on_success {retval}")

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.note(f"on_failure {exc!r}")

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.note("on_retry")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.note(f"after_return {status}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.note("__call__")
        return self.run(*args, **kwargs)


@app.task(base=Recording, bind=True, max_retries=1)
def recorded(self: Task, how: str) -> str:
    if how == "fail":
        raise ValueError("as asked")
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0.5)
    return how


class Counter(Task):
    """A class-based task that keeps state from message to message."""

    name = "sample.counter"

    def __init__(self) -> None:
        self.count = 0

    def run(self, step: int) -> tuple[int, int]:
        self.count += step
        return os.getpid(), self.count


counter = app.register_task(Counter())


@shared_task
def shared(x: int) -> int:
    return x * 2


@app.task(ignore_result=True)
def ignored(path: str) -> None:
    open(path, "w").close()


@app.task
def chatty(text: str) -> None:
    print(f"printed {text}")
    logger.info("logged %s", text)
