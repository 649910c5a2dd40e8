"""A project on a real broker, and workers that consume it: bridges and stock ones."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery

from tests import support
from tests.support import until

#: The project that the tests run: the tasks leave traces in files, so that runs can be counted whoever ran them.
PROJECT = Path(__file__).parent / "programs" / "project.py"


@dataclass
class Project:
    """A project in a folder of its own.

    Arguments:
        module: its name.
        directory: where it is.
        app: a stock application that publishes and reads results, as a producer that was not moved does.
    """

    module: str
    directory: Path
    app: celery.Celery

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Publish a call of one of its tasks."""
        return self.app.send_task(f"{self.module}.{task}", args, **options)

    def traces(self, name: str) -> list[list[str]]:
        """Return what the tasks left under a name: process, time, text of each line."""
        path = self.directory / f"{name}.trace"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def go(self) -> None:
        """Let waiting tasks end."""
        (self.directory / "go").touch()


def write(directory: Path, broker: str, backend: str, *, package: str = "raycelery", more: str = "",
          **settings: Any) -> Project:  # fmt: skip
    """Write the project to a folder."""
    module = f"proj_{os.getpid()}_{support.free_port()}"
    if package == "raycelery":
        settings = {"ray_mode": "bridge", **settings}
    imported, made = "from celery import Celery\n", 'app = Celery("project")\n'
    text = PROJECT.read_text()
    assert imported in text
    assert made in text
    text = text.replace(imported, f"from {package} import Celery\n")
    text = text.replace(
        made,
        f"app = Celery({module!r}, broker={broker!r}, backend={backend!r})\napp.conf.update({settings!r})\n",
    )
    (directory / f"{module}.py").write_text(f"{text}\n\n{more}\n")
    transport = settings.get("broker_transport_options", {})
    app = celery.Celery(module, broker=broker, backend=backend, set_as_current=False)
    app.conf.broker_transport_options = transport
    return Project(module, directory, app)


class Worker(support.StockWorker):
    """A running worker, a bridge or a stock one."""

    def wait_for_log(self, text: str, seconds: float = 30) -> str:
        """Wait until it has written something; return all that it has written."""
        until(lambda: text in self.log.read_text(), seconds, lambda: f"{text!r} is not in:\n{self.log.read_text()}")
        return self.log.read_text()


@contextlib.contextmanager
def worker(
    project: Project,
    *arguments: str,
    address: str | None = None,
    concurrency: int = 2,
    env: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> Iterator[Worker]:
    """Run ``celery -A project worker``, ready to take messages, and end it with SIGTERM."""
    node = f"w{support.free_port()}@localhost"
    log = project.directory / f"{node}.log"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(project.directory), str(support.ROOT)]),
        "PYTHONUNBUFFERED": "1",
        **({"RAY_ADDRESS": address} if address else {}),
        **(env or {}),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", project.module, "worker", "-c", str(concurrency), "-n", node,
             "--without-gossip", "--without-mingle", "-l", "INFO", *arguments],
            cwd=project.directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )  # fmt: skip
    found = Worker(node, process, log)
    try:
        until(
            lambda: process.poll() is not None or _answers(project, node),
            seconds,
            lambda: f"the worker is not ready:\n{log.read_text()}",
        )
        if process.poll() is not None:
            raise RuntimeError(f"the worker ended with status {process.returncode}:\n{log.read_text()}")
        yield found
    finally:
        support.stop(process)


def _answers(project: Project, node: str) -> bool:
    return bool(project.app.control.ping(destination=[node], timeout=0.5))


def runs(project: Project, name: str) -> int:
    """Return how often a task that leaves traces under a name has begun."""
    return sum(line[2] == "begin" for line in project.traces(name))


def restart_under_load(project: Project, worker: Worker, broker: Any) -> None:
    """Restart the broker while tasks run and wait, and see that all are done and that what ran was not run again.

    Arguments:
        project: on the broker.
        worker: a bridge that runs three at once.
        broker: what to ``stop()`` and ``start()``.
    """
    long = [project.send("late", f"long{i}", 60) for i in range(2)]
    results = [project.send("late", f"load{i}") for i in range(150)]
    until(lambda: runs(project, "long0") and runs(project, "long1") and runs(project, "load20"))
    broker.stop()
    worker.wait_for_log("Connection to broker lost")
    broker.start()
    assert [result.get(timeout=90) for result in results] == [f"load{i}" for i in range(150)]
    project.go()
    assert [result.get(timeout=60) for result in long] == ["long0", "long1"]
    # What ran went on, though the broker may have delivered its messages again.
    assert runs(project, "long0") == runs(project, "long1") == 1
