"""The interface of a system, and what all of them do alike: submit, take, warm up."""

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

#: Seconds after which a result is missing rather than late, and a system that does not come up is broken.
TIMEOUT, START_TIMEOUT = 900.0, 60.0
#: Seconds that a process has to end when asked to. Nothing that it still does then is of use to anybody.
_POLITE_SECONDS = 5.0
#: The task that warms workers up.
WARM = f"{record.__name__}:warm"
#: Tells the workers which functions are tasks, and Celery how they are set up: JSON.
SETUP_VARIABLE = "RAYCELERY_BENCH_SETUP"


class System:
    """One way to run tasks, in this process and in those that it starts.

    Arguments:
        fleet: how it is provisioned.
        setup: for its worker processes: "targets" with their options, "applications", "serializer", "celery".
        scratch: an empty folder for its files; it is removed afterwards.
    """

    name: str

    def __init__(self, fleet: Fleet, setup: dict[str, Any], scratch: Path) -> None:
        self.fleet, self.setup, self.scratch = fleet, setup, scratch
        self.stack = contextlib.ExitStack()

    def start(self) -> None:
        """Start all it needs. What it starts is ended by :meth:`stop`, also when this fails half-way."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what was started."""
        self.stack.close()

    def submit(self, call: Call) -> Any:
        """Submit a call and return a handle for :meth:`take`."""
        raise NotImplementedError

    def take(self, handle: Any) -> Any:
        """Wait for what `bench.record.recorded` returned, or raise what the task raised."""
        raise NotImplementedError

    def take_all(self, handles: Sequence[Any]) -> Iterator[Any]:
        """Results in order; an exception where one failed. To be overridden where results can be had together."""
        for handle in handles:
            try:
                yield self.take(handle)
            except Exception as error:  # whatever a task raises
                yield error

    def chord(self, calls: list[Call], body: str) -> Any:
        """Run the calls, then ``body`` with the list of their records; wait for the body's record."""
        raise NotImplementedError(f"{self.name} has no chords")

    def chain(self, first: Call, length: int) -> Any:
        """Run the call, and with its record the same function again, ``length`` times; wait for the last record."""
        raise NotImplementedError(f"{self.name} has no chains")

    def measuring(self) -> contextlib.AbstractContextManager[list[Any]]:
        """Measure what each task uses while this lasts; the samples are in the list afterwards."""
        raise NotImplementedError(f"{self.name} does not measure tasks")

    def send(self, call: Call) -> tuple[Any, Outcome]:
        """Submit a call and note when, and how long that took."""
        submitted, began = time.time(), time.perf_counter()
        handle = self.submit(call)
        return handle, Outcome(call.group, submitted, time.perf_counter() - began)

    def batch(
        self, calls: Sequence[Call], progress: Callable[[int, int], None], *, tolerant: bool = False
    ) -> list[Outcome]:
        """Submit each call at its time, then take all results.

        Arguments:
            calls: in the order of their times.
            progress: told how many of how many were taken.
            tolerant: whether a failed task is noted rather than raised.

        Raises:
            WrongResultError: a task failed.
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
        """Have every slot run ``target``, so that no worker starts or imports while time is taken.

        Arguments:
            target: a function without arguments.
            application: whose workers are to be warm.
            progress: told how many slots of how many are warm.

        Raises:
            TimeoutError: a slot never ran anything.
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
        """Start a process that :meth:`stop` ends, first politely."""
        # A signal between the start and the note of how to end it would leave it behind.
        with (self.scratch / log).open("wb") as output, postponed(signal.SIGTERM):
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            self.stack.callback(_end, started)
        return started

    def up(self, process: subprocess.Popen[bytes], log: str, ready: Callable[[], bool]) -> None:
        """Wait until ``ready``.

        Raises:
            RuntimeError: the process ended before, or took too long; with the end of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (self.scratch / log).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not come up:\n{tail}")
            time.sleep(0.05)


@contextlib.contextmanager
def postponed(number: signal.Signals) -> Iterator[None]:
    """Have a signal handled after the block rather than within it. In the main thread only, as handlers are."""
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
        # Children that lose their parent this way may wait for it for ever.
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()


def setup_from_environment() -> dict[str, Any]:
    """Return what :class:`System` was given, in its worker processes."""
    import json

    found: dict[str, Any] = json.loads(os.environ[SETUP_VARIABLE])
    return found
