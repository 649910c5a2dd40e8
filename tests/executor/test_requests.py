"""``Task.Request`` and ``Task.Strategy``: who keeps book of a task's messages, and who takes them from a broker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.worker.request import Request

from raycelery import Celery
from raycelery.errors import OptionError
from tests import records
from tests.support import until

pytestmark = pytest.mark.usefixtures("ray_session")

app = Celery("requests")


class Recording(Request):
    """Celery's own example (https://docs.celeryq.dev/en/stable/userguide/tasks.html), with all that is called."""

    def _record(self, what: str, more: Any = None) -> None:
        records.write(self.args[0], what=what, more=more)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        self._record("accepted")

    def on_success(self, outcome: Any, **kwargs: Any) -> None:
        super().on_success(outcome, **kwargs)
        if not outcome[0]:
            self._record("success", outcome[1])

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        self._record("failure", type(exc_info.exception).__name__)

    def on_retry(self, exc_info: Any) -> None:
        super().on_retry(exc_info)
        self._record("retry")

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        self._record("timeout", soft)


class Recorded(Task):
    Request = Recording


@app.task(base=Recorded, bind=True)
def recorded(self: Task, path: str, what: str = "") -> str:
    if what == "fail":
        raise ValueError(what)
    if what == "retry" and not self.request.retries:
        raise self.retry(countdown=0)
    if what == "wait":
        time.sleep(60)
    return "done"


def test_a_request_of_ones_own_is_told_what_becomes_of_messages(tmp_path: Path) -> None:
    def told(what: str, *more: Any, error: Any = None, **options: Any) -> list[Any]:
        path = tmp_path / what
        result = recorded.apply_async((str(path), *more), **options)
        if error is None:
            assert result.get(timeout=60) == "done"
        else:
            with pytest.raises(error):
                result.get(timeout=60)
        # A result is there before the bookkeeping is.
        until(lambda: [one for one in records.read(path) if one["what"] not in ("accepted", "retry")])
        return [(one["what"], one["more"]) for one in records.read(path)]

    assert told("well") == [("accepted", None), ("success", repr("done"))]
    assert ("failure", "ValueError") in told("fail", "fail", error=ValueError)
    assert ("retry", None) in told("retry", "retry")
    soft = told("soft", "wait", error=SoftTimeLimitExceeded, soft_time_limit=1)
    assert ("timeout", True) in soft
    assert ("timeout", False) in told("hard", "wait", error=TimeLimitExceeded, time_limit=1)


class Handing(Request):
    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
        return super().execute_using_pool(pool, **kwargs)


@app.task(Request=Handing)
def handed() -> None:
    """Count on a worker's pool."""


class Collected(Task):
    """A base class with a Strategy of its own, as that of celery-batches."""

    abstract = True

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Any:
        raise NotImplementedError


@app.task(base=Collected)
def counted(requests: list[Any]) -> None:
    """Count on a worker that takes messages from a broker."""


def test_what_needs_a_worker_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"counted.*Strategy.*celery-batches.*ray_mode='bridge'"):
        counted.delay(1)
    with pytest.raises(OptionError, match=r"handed.*Handing.*execute_using_pool.*ray_mode='bridge'"):
        handed.delay()
    # Also where the caller does not know the task.
    other = Celery("requests", set_as_current=False, ray_app="tests.executor.test_requests:app")
    with pytest.raises(OptionError, match="counted"):
        other.send_task(counted.name, (1,)).get(timeout=60)
