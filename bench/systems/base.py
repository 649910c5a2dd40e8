"""The interface of a system, with the parts that all systems share."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from .. import record
from ..calls import Call, Fleet, WrongResultError
from ..record import Outcome

#: Seconds to wait for a result, and for a system to start.
TIMEOUT, START_TIMEOUT = 900.0, 60.0
#: Seconds that a process gets between SIGTERM and SIGKILL.
_POLITE_SECONDS = 5.0
#: Target of the task that warms workers up.
WARM = f"{record.__name__}:warm"
#: Environment variable with the setup for worker processes, as JSON.
SETUP_VARIABLE = "RAYCELERY_BENCH_SETUP"


class System:
    """A system that runs tasks, in this process and in those that it starts.

    Arguments:
        fleet: its workers.
        setup: for its worker processes: "targets" with their options, "applications", "serializer", "celery".
        scratch: an empty folder for its files; it is removed afterwards.
    """

    name: str

    def __init__(self, fleet: Fleet, setup: dict[str, Any], scratch: Path) -> None:
        self.fleet, self.setup, self.scratch = fleet, setup, scratch
        self.stack = contextlib.ExitStack()

    def start(self) -> None:
        """Start everything it needs. :meth:`stop` ends what was started, even if this raises."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop everything that :meth:`start` started."""
        self.stack.close()

    def submit(self, call: Call) -> Any:
        """Submit a call and return a handle for :meth:`take`."""
        raise NotImplementedError

    def take(self, handle: Any) -> Any:
        """Wait for what `bench.record.recorded` returned, or raise what the task raised."""
        raise NotImplementedError

    def take_all(self, handles: Sequence[Any]) -> Iterator[Any]:
        """Yield the results in order, an exception for a task that failed. Systems with batched reads override it."""
        for handle in handles:
            try:
                yield self.take(handle)
            except Exception as error:  # whatever a task raises
                yield error

    def chord(self, calls: list[Call], body: str) -> Any:
        """Run a chord: the calls, then ``body`` with the list of their records. Return the body's record."""
        raise NotImplementedError(f"{self.name} has no chords")

    def chain(self, first: Call, length: int) -> Any:
        """Run a chain of ``length`` calls of one function, each with the record before it; return the last record."""
        raise NotImplementedError(f"{self.name} has no chains")

    def measuring(self) -> contextlib.AbstractContextManager[list[Any]]:
        """Return a context manager that measures what each task uses; it yields the list of samples."""
        raise NotImplementedError(f"{self.name} does not measure tasks")

    def send(self, call: Call) -> tuple[Any, Outcome]:
        """Submit a call; return its handle, and an outcome with the time of submission."""
        submitted, began = time.time(), time.perf_counter()
        handle = self.submit(call)
        return handle, Outcome(call.group, submitted, time.perf_counter() - began)

    def batch(
        self, calls: Sequence[Call], progress: Callable[[int, int], None], *, tolerant: bool = False
    ) -> list[Outcome]:
        """Submit each call at its time, then wait for all results.

        Arguments:
            calls: the calls, sorted by their times.
            progress: called with the number of results and the number of calls.
            tolerant: record the error of a failed task instead of raising.

        Raises:
            WrongResultError: a task failed, unless ``tolerant``.
        """
        sent: list[tuple[Any, Outcome]] = []
        began = time.time()
        for call in calls:
            if call.at and (wait := began + call.at - time.time()) > 0:
                time.sleep(wait)
            sent.append(self.send(call))
        answers = self.take_all([handle for handle, _ in sent])
        for count, ((_, outcome), answer) in enumerate(zip(sent, answers, strict=True), 1):
            if isinstance(answer, BaseException):
                if not tolerant:
                    raise WrongResultError(f"a task failed on {self.name}: {answer!r}") from answer
                outcome.error = repr(answer)
            else:
                outcome.take(answer, time.time())
            progress(count, len(sent))
        return [outcome for _, outcome in sent]

    def warm_up(self, target: str, application: str, progress: Callable[[int, int], None]) -> None:
        """Run ``target`` on every slot, so that no worker starts or imports anything while time is measured.

        Arguments:
            target: a function without arguments.
            application: the application whose workers are warmed up.
            progress: called with the number of warm slots and the number of all slots.

        Raises:
            TimeoutError: for a minute, no further slot ran anything.
        """
        slots: set[str | None] = set()
        call = Call(WARM, (target,), application=application)
        seen, since = 0, time.monotonic()
        while len(slots) < self.fleet.slots:
            outcomes = self.batch([call] * 2 * self.fleet.slots, lambda *_: None)
            slots.update(outcome.slot for outcome in outcomes)
            progress(len(slots), self.fleet.slots)
            if len(slots) > seen:
                seen, since = len(slots), time.monotonic()
            elif time.monotonic() > since + START_TIMEOUT:
                raise TimeoutError(f"{self.name}: only {seen} of {self.fleet.slots} workers came up")

    def process(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        """Start a process; :meth:`stop` terminates it, and kills it if necessary.

        Arguments:
            command: the program and its arguments.
            log: name of the file in ``scratch`` that gets its output."""
        # A signal between the start and the registration of the callback would leave the process behind.
        with (self.scratch / log).open("wb") as output, postponed(signal.SIGTERM):
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            self.stack.callback(_end, started)
        return started

    def up(self, process: subprocess.Popen[bytes], log: str, ready: Callable[[], bool]) -> None:
        """Wait until ``ready`` returns True.

        Raises:
            RuntimeError: the process ended, or a minute passed; the message has the end of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self.scratch / log).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not come up:\n{tail}")
            time.sleep(0.05)


@contextlib.contextmanager
def postponed(number: signal.Signals) -> Iterator[None]:
    """Postpone the handling of a signal until the block ends. Works in the main thread only, as signal handlers do."""
    came = []
    handler = signal.signal(number, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(number, handler)
        if came:
            signal.raise_signal(number)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_POLITE_SECONDS)
    except subprocess.TimeoutExpired:
        # Children whose parent is killed may wait for it for ever.
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()


def setup_from_environment() -> dict[str, Any]:
    """Return the ``setup`` of :class:`System`, in one of its worker processes."""
    import json

    found: dict[str, Any] = json.loads(os.environ[SETUP_VARIABLE])
    return found
