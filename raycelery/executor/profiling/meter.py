"""Measures the runs of an executor, while right-sizing asks for it.

It handles Celery's signals ``task_prerun`` and ``task_postrun``, so it measures messages of the dispatcher and of
bridges alike. It is imported and connected only while it measures, so it costs nothing otherwise.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
from celery import signals

from raycelery.executor import request
from raycelery.executor.profiling import process
from raycelery.executor.profiling.canvas import tasks_in
from raycelery.executor.profiling.sample import Sample
from raycelery.protocol.frames import RunMeasured

if TYPE_CHECKING:
    from raycelery.client.connection import Client

#: Seconds between two samples of child processes, and the largest share of a CPU that sampling may use.
_INTERVAL, _SHARE = 0.05, 0.05


@dataclass
class _Run:
    """The readings at the beginning of a run."""

    task_id: str
    began: float
    started: float
    cpu: float
    delayed: float
    before: int
    peak_told: bool
    #: Child processes at the beginning, and CPU seconds that they and ended children had used.
    children: list[psutil.Process]
    of_children: float


class Meter:
    """Measures the runs of this process.

    Arguments:
        client: the executor's connection, which sends samples to the dispatcher.
        fresh: whether this process has not run any task yet.
    """

    def __init__(self, client: Client, fresh: bool) -> None:
        self._client = client
        self._num_cpus, self._memory = float(request.get("CPU", 0)), int(request.get("memory", 0))
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        #: Names of all tasks that have run in this process; None if not known.
        self._ran: set[str] | None = set() if fresh else None
        self._run: _Run | None = None
        self._on = False
        self._children = _Children()

    def switch(self, on: bool) -> None:
        """Start or stop measuring."""
        if on == self._on:
            return
        self._on = on
        for signal, handler in ((signals.task_prerun, self._before), (signals.task_postrun, self._after)):
            if on:
                signal.connect(handler, weak=False)
            else:
                signal.disconnect(handler)
        if on:
            self._children.start()
        else:
            self._children.stop()
            # Tasks that run before it is switched on again are not seen.
            self._ran = None

    def _before(self, sender: Any, task_id: str, **_: Any) -> None:
        if sender.request.is_eager:
            return  # a task called by another one in its process is part of that one's run
        known = self._children.known()
        told = process.forget_peak()
        self._run = _Run(
            task_id=task_id,
            before=process.private_memory()[0],
            peak_told=told,
            children=known,
            of_children=process.cpu_of_ended_children() + process.cpu_of(known),
            delayed=process.seconds_without_cpu(),
            cpu=time.process_time() - self._children.cpu,
            started=time.time(),
            began=time.monotonic(),
        )
        self._children.watch(True)

    def _after(self, sender: Any, task_id: str, state: str | None, **_: Any) -> None:
        run = self._run
        if run is None or run.task_id != task_id:
            return
        wall = time.monotonic() - run.began
        cpu = time.process_time() - self._children.cpu - run.cpu
        delayed = process.seconds_without_cpu() - run.delayed
        now, peak = process.private_memory()
        most = self._children.watch(False)
        left = self._children.look() if wall > _INTERVAL else run.children
        # Ended children count with their total CPU time, running ones with what they have used so far.
        cpu += max(0.0, process.cpu_of_ended_children() + process.cpu_of(left) - run.of_children)
        if run.peak_told and peak is not None:
            most = max(most, peak)
        self._run = None
        first = self._ran is not None and sender.name not in self._ran
        if self._ran is not None:
            self._ran.add(sender.name)
        sample = Sample(
            task=sender.name,
            state=state or "",
            wall=wall,
            cpu=cpu,
            delayed=min(delayed, wall),
            peak=max(most, now, run.before),
            before=run.before,
            num_cpus=self._num_cpus,
            memory=self._memory,
            process=self._process,
            first=first,
            started=run.started,
            batch=(sender.request.group or "") if sender.request.chord else "",
            callbacks=tuple(tasks_in(sender.request.chord)) if sender.request.chord else (),
        )
        self._client.post(RunMeasured(sample.packed()))


class _Children:
    """A thread that samples the memory of this process and its children during a run."""

    def __init__(self) -> None:
        #: CPU seconds used by the sampling itself, to be subtracted.
        self.cpu = 0.0
        self._found: list[psutil.Process] = []
        self._most = 0
        self._watching = threading.Event()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._forever, args=(self._ending,), name="raycelery-meter", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._ending.set()
        self._watching.set()

    def known(self) -> list[psutil.Process]:
        """Return the children of the last sample that are still running."""
        with self._lock:
            return [child for child in self._found if child.is_running()]

    def look(self) -> list[psutil.Process]:
        """Take a sample of the children, and return them."""
        found = process.children()
        with self._lock:
            self._found = found
        return found

    def watch(self, on: bool) -> int:
        """Start or stop sampling; return the largest number of bytes sampled since the last call."""
        with self._lock:
            most, self._most = self._most, 0
        if on:
            self._watching.set()
        else:
            self._watching.clear()
        return most

    def _forever(self, ending: threading.Event) -> None:
        wait = _INTERVAL
        while not ending.is_set():
            self._watching.wait()
            # A run that has ended by now was too short to start children.
            if ending.wait(wait) or not self._watching.is_set():
                continue
            used = time.thread_time()
            found = self.look()
            total = process.private_memory()[0] + process.memory_of(found)
            with self._lock:
                if self._watching.is_set():
                    self._most = max(self._most, total)
                cost = time.thread_time() - used
                self.cpu += cost
            wait = max(_INTERVAL, cost / _SHARE)
