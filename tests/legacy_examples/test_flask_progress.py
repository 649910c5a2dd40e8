"""The Flask project's trainings are started, followed and ended alike on stock Celery and on raycelery."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import support
from tests.legacy_examples.projects import Project

NAME = "flask_progress"
WORKER = "wsgi.celery"
pytestmark = pytest.mark.timeout(400)


@contextlib.contextmanager
def serving(project: Project) -> Iterator[str]:
    """Run ``flask run`` in the project's folder and yield the URL it serves."""
    port, log = support.free_port(), project.folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", str(port)],
            cwd=project.folder,
            env=project.environ(PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        support.until(lambda: "Running on " in log.read_text() or process.poll() is not None, say=log.read_text)
        if process.poll() is not None:
            raise RuntimeError(f"the server does not start:\n{log.read_text()}")
        yield f"http://127.0.0.1:{port}"
    except Exception:
        print(log.read_text())
        raise
    finally:
        support.stop(process)


@dataclass(frozen=True)
class Run:
    """What came of one system: of ``train.py`` with good models, with a bad one, and of a training that was ended."""

    said: str
    progress: str
    failed: str
    cancelled: dict[str, Any]
    status: int


def call(url: str, method: str = "GET", **form: object) -> Any:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=120) as response:
        return json.load(response) if response.status != 204 else None


def polled(url: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Poll a training as the page does, until it is as wanted."""

    def found() -> dict[str, Any] | None:
        status: dict[str, Any] = call(url)
        return status if wanted(status) else None

    status: dict[str, Any] = support.until(found, 110)
    return status


def use(project: Project) -> Run:
    with serving(project) as url:
        good = project.run("train.py", "--url", url)
        assert good.returncode == 0, good.stdout + good.stderr
        bad = project.run("train.py", "0", "--url", url)
        # So large that it does not end by itself while it is watched.
        training = f"{url}/trainings/{call(f'{url}/trainings', 'POST', hidden=1000)['id']}"
        polled(training, lambda status: status["state"] == "PROGRESS")
        call(training, "DELETE")
        cancelled = polled(training, lambda status: status["state"] not in ("PROGRESS", "STARTED", "PENDING"))
    return Run(good.stdout, good.stderr, bad.stdout, cancelled, bad.returncode)


def test_stock_celery_trains_and_tells_its_progress(stock: Run) -> None:
    lines = stock.said.splitlines()
    assert [line.partition(" neurons")[0].strip() for line in lines] == ["16", "32", "64"]
    assert all(90 < float(line.partition(": ")[2].partition("%")[0]) <= 100 for line in lines)
    assert "of 12: " in stock.progress
    assert stock.failed == "   0 neurons: FAILURE, ValueError: 0 neurons cannot be trained: ask for 1 to 1000\n"
    assert stock.status == 1
    assert stock.cancelled["state"] == "REVOKED"


def test_raycelery_does_the_same_without_redis(stock: Run, ray: Run) -> None:
    assert ray.said == stock.said
    assert ray.failed == stock.failed
    assert ray.status == stock.status
    assert ray.cancelled == stock.cancelled
    assert "of 12: " in ray.progress
