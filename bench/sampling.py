"""Samples CPU and memory of a process tree, and ends processes that it leaves behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psutil

#: Seconds between two samples, and the largest share of the time that sampling may take.
_INTERVAL, _SHARE = 0.25, 0.02
#: Seconds between two samples of memory, which take longer; they are limited by the same share.
_MEMORY_INTERVAL = 0.5
#: Seconds that a left-over process gets between SIGTERM and SIGKILL.
_GRACE = 5.0


@dataclass
class Usage:
    """Samples over time, as lists of equal length.

    Arguments:
        time: seconds since the epoch.
        cpu: CPU seconds used so far by all processes, including those that have ended.
        memory: bytes (PSS: shared pages are divided among the processes); the last value where it was not sampled.
        processes: number of processes.
        machine: CPU seconds used so far by all processes of the machine.
    """

    time: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    machine: list[float] = field(default_factory=list)


class Sampler(threading.Thread):
    """A thread that samples a process and its descendants.

    Arguments:
        pid: id of the process.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.usage = Usage()
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._memory_after = self._cost = 0.0
        #: CPU seconds by process; kept when it ends. psutil distinguishes processes that reuse a pid.
        self._used: dict[psutil.Process, float] = {}

    def run(self) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            if not self.look():
                return
            self._done.wait(max(_INTERVAL - (time.monotonic() - began), self._cost / _SHARE))

    @property
    def seen(self) -> list[psutil.Process]:
        """All processes that were sampled, ended ones included."""
        with self._lock:
            return list(self._used)

    def look(self) -> bool:
        """Take a sample; return False if the process has ended."""
        with self._lock:
            try:
                self._sample()
            except psutil.NoSuchProcess:
                return False
        return True

    def finish(self) -> Usage:
        """Stop, and return all samples."""
        self._done.set()
        self.join()
        return self.usage

    def _sample(self) -> None:
        usage, began = self.usage, time.monotonic()
        processes = [self._root, *self._root.children(recursive=True)]
        for process in processes:
            try:
                times = process.cpu_times()
                self._used[process] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        usage.time.append(time.time())
        usage.cpu.append(sum(self._used.values()))
        usage.processes.append(len(processes))
        whole = psutil.cpu_times()
        usage.machine.append(sum(whole) - whole.idle - getattr(whole, "iowait", 0.0) - getattr(whole, "guest", 0.0))
        self._cost = time.monotonic() - began
        if time.monotonic() >= self._memory_after:
            began = time.monotonic()
            usage.memory.append(sum(map(_memory, processes)))
            cost = time.monotonic() - began
            self._memory_after = time.monotonic() + max(_MEMORY_INTERVAL, cost / _SHARE)
        else:
            usage.memory.append(usage.memory[-1])


def _memory(process: psutil.Process) -> int:
    """Return the bytes of a process: PSS where the system has it, else USS."""
    try:
        full: Any = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.uss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def end_left(seen: Iterable[psutil.Process], variable: str, value: str) -> int:
    """End all remaining processes of a turn except this one; return their number.

    Processes whose parents have ended are found by a variable of their environment, which they inherit. Those that
    overwrite their environment, as Redis does, must be among ``seen``.

    Arguments:
        seen: processes that were sampled during the turn.
        variable: environment variable that marks the turn's processes.
        value: its value for this turn.
    """
    found = {process for process in seen if process.is_running()}
    own = psutil.Process()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process != own and process.environ().get(variable) == value:
                found.add(process)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(list(found), _GRACE)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, _GRACE)
    return len(found)


def socket_bytes() -> int | None:
    """Return the bytes sent over the loopback interface since the machine started; None if not known."""
    counters = psutil.net_io_counters(pernic=True)
    loopback = next((counters[name] for name in ("lo", "lo0") if name in counters), None)
    return None if loopback is None else int(loopback.bytes_sent)
