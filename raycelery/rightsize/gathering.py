"""Collects samples: of given calls, of a script of the project, or of whatever an application runs."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature

from raycelery import names
from raycelery.app.options import options_of
from raycelery.errors import RayCeleryError
from raycelery.executor.profiling.sample import Sample
from raycelery.protocol import questions

if TYPE_CHECKING:
    from celery import Celery

#: Seconds for which executors measure after each request, and seconds between two reads of their samples.
_LEASE, _LOOK = 15.0, 0.2
#: Seconds that a script gets between SIGTERM and SIGKILL.
_GRACE = 10.0

#: Called with the number of measured runs, and the number of those to come if it is known.
Progress = Callable[[int, "int | None"], None]


class Gatherer:
    """Collects the samples of one application.

    Arguments:
        app: the application.
        progress: called whenever samples were read.
    """

    def __init__(self, app: Celery, progress: Progress) -> None:
        self.app = app
        self.samples: list[Sample] = []
        #: Errors of calls that failed.
        self.errors: list[str] = []
        self._progress = progress
        self._seen = 0
        self._lease = _LEASE
        self._renewed = float("-inf")

    @contextlib.contextmanager
    def measuring(self, lease: float = _LEASE) -> Iterator[None]:
        """Have the executors measure during the block.

        Arguments:
            lease: seconds after which they stop measuring by themselves, unless samples are read meanwhile.
        """
        client = self.app.client
        self._seen, self._lease, self._renewed = client.call(questions.Measured(0)).count, lease, float("-inf")
        self._look()
        try:
            yield
            self._look()
        finally:
            # If this fails, the lease ends the measuring.
            with contextlib.suppress(RayCeleryError):
                client.call(questions.Measure(0.0))

    def _look(self) -> None:
        client = self.app.client
        now = time.monotonic()
        if now - self._renewed > self._lease / 3:
            client.call(questions.Measure(self._lease))
            self._renewed = now
        new = client.call(questions.Measured(self._seen))
        self._seen = new.count
        self.samples += map(Sample.opened, new.samples)

    def calls(self, signatures: Sequence[Signature], num_cpus: float | None = None) -> list[Sample]:
        """Make calls, wait until no task is pending, and return the new samples.

        Arguments:
            signatures: the calls.
            num_cpus: CPUs that each asks for; None for what the project says.
        """
        options = {} if num_cpus is None else {"num_cpus": num_cpus}
        begun = len(self.samples)
        client = self.app.client
        with self.measuring():
            results = [one.apply_async(**options) for one in signatures]
            while left := client.call(questions.Pending()):
                self._look()
                self._progress(len(self.samples) - begun, left)
                time.sleep(_LOOK)
        self._progress(len(self.samples) - begun, 0)
        for result in results:
            # A task that ignores its results has no state.
            if getattr(result, "state", None) == "FAILURE":
                self.errors.append(f"{result.result!r}")
        return self.samples[begun:]

    def watch(self, seconds: float) -> list[Sample]:
        """Return the samples of everything that the application runs in the next ``seconds``."""
        begun, end = len(self.samples), time.monotonic() + seconds
        with self.measuring():
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _LOOK))
                self._look()
                self._progress(len(self.samples) - begun, None)
        return self.samples[begun:]

    def script(self, command: str) -> int:
        """Run a script of the project, measure all tasks that it causes, and return its exit status.

        Arguments:
            command: a Python file and its arguments, or ``-m`` and a module.
        """
        import ray

        client = self.app.client
        environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        with self.measuring():
            # Standard output is for the report.
            process = subprocess.Popen([sys.executable, *shlex.split(command)], env=environment, stdout=sys.stderr)
            try:
                while process.poll() is None or client.call(questions.Pending()):
                    time.sleep(_LOOK)
                    self._look()
                    self._progress(len(self.samples), None)
            finally:
                _end(process)
        return process.returncode


def asked(app: Celery, name: str) -> tuple[float, int]:
    """Return the CPUs and bytes of memory that calls of a task ask for, according to the project."""
    task, conf = app.tasks.get(name), app.conf
    queue = app.amqp.router.route({}, name)["queue"]
    options = {"num_cpus": conf.ray_num_cpus, **(conf.ray_queues.get(queue.name) or {})}
    options.update(options_of(task) if task is not None else {})
    return float(options["num_cpus"] or 0), int(options.get("memory") or 0)


@contextlib.contextmanager
def alone(app: Celery) -> Iterator[None]:
    """Use a separate dispatcher for the application in this process and its children, and end it afterwards.

    So the measured calls do not wait in a queue with the application's other work.
    """
    import ray

    before = os.environ.get(names.NAME_VARIABLE)
    os.environ[names.NAME_VARIABLE] = f"{names.dispatcher_name(app)}-rightsize-{uuid.uuid4().hex[:8]}"
    opened: Any = None
    try:
        opened = app.session
        yield
    finally:
        if opened is not None:
            opened.client.close()
            opened.client.submitted = 0  # so that the exit does not wait for them
            # Its executors end with it.
            ray.kill(opened.dispatcher)
        if before is None:
            del os.environ[names.NAME_VARIABLE]
        else:
            os.environ[names.NAME_VARIABLE] = before


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
