"""Measures every message that an executor runs, while somebody wants to know.

It listens to Celery's own signals, before and after each run, and is connected to them only while it measures: nothing
of it is in the way, or even imported, otherwise. So it measures messages of the dispatcher and of bridges alike.
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
from raycelery.protocol import framing
from raycelery.rightsize import process
from raycelery.rightsize.calls import tasks_in
from raycelery.rightsize.sample import Sample

if TYPE_CHECKING:
    from raycelery.client.connection import Client

#: Seconds between two looks at child processes, unless looking would take more than this share of a CPU.
_INTERVAL, _SHARE = 0.05, 0.05


@dataclass
class _Run:
    """A run that has begun: the readings at its beginning."""

    task_id: str
    began: float
    started: float
    cpu: float
    delayed: float
    before: int
    peak_told: bool
    #: Descendants that were there, with the CPU seconds that they and their ended ones had used.
    children: list[psutil.Process]
    of_children: float


class Meter:
    """Measures the runs of this process.

    Arguments:
        client: the executor's connection, by which samples go to the dispatcher.
        fresh: whether this process has run nothing yet.
    """

    def __init__(self, client: Client, fresh: bool) -> None:
        self._client = client
        self._num_cpus, self._memory = float(request.get("CPU", 0)), int(request.get("memory", 0))
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        #: Tasks that ran here, if all are known.
        self._ran: set[str] | None = set() if fresh else None
        self._run: _Run | None = None
        self._on = False
        self._children = _Children()

    def switch(self, on: bool) -> None:
        """Begin or cease to measure."""
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
            # What runs meanwhile is not known.
            self._ran = None

    def _before(self, sender: Any, task_id: str, **_: Any) -> None:
        if sender.request.is_eager:
            return  # a task that another one calls in its own process is a part of that one
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
        # A child that has ended is among the ended ones with all that it ever used; one that has not, with what it has.
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
        self._client.post(framing.pack("measured", sample))


class _Children:
    """Looks at this process's memory and at its children from a thread of its own, while a run is watched."""

    def __init__(self) -> None:
        #: CPU seconds that the looking itself has taken, to be left out.
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
        """Have the thread end."""
        self._ending.set()
        self._watching.set()

    def known(self) -> list[psutil.Process]:
        """Return the children that were there when it last looked, and still are."""
        with self._lock:
            return [child for child in self._found if child.is_running()]

    def look(self) -> list[psutil.Process]:
        """Look now, and return all children."""
        found = process.children()
        with self._lock:
            self._found = found
        return found

    def watch(self, on: bool) -> int:
        """Begin or cease to look; return the most bytes that were seen at once since it began."""
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
            # A run that is over by then was so short that it had no time for children.
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
