"""CPU and memory of a tree of processes over time, and the end of whatever is left of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psutil

#: Seconds between samples, unless one takes so long that it would disturb: then it is this share of the time.
_INTERVAL, _SHARE = 0.25, 0.02
#: Memory takes longer to look at, so it is by itself no larger share, and looked at no more often than this.
_MEMORY_INTERVAL = 0.5
#: Seconds that a left-over process has to end by itself.
_GRACE = 5.0


@dataclass
class Usage:
    """What was sampled; lists of equal length.

    Arguments:
        time: seconds since the epoch.
        cpu: CPU seconds used so far by all processes, those that have ended included.
        memory: bytes, shared pages divided among those who share them; the last known where it was not looked at.
        processes: how many.
        machine: CPU seconds used so far by all processes of the machine.
    """

    time: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    machine: list[float] = field(default_factory=list)


class Sampler(threading.Thread):
    """Samples a process and its descendants until it is told to stop.

    Arguments:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.usage = Usage()
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._memory_after = self._cost = 0.0
        #: CPU seconds by process, kept when it ends: psutil knows a process from another that got its number.
        self._used: dict[psutil.Process, float] = {}

    def run(self) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            if not self.look():
                return
            self._done.wait(max(_INTERVAL - (time.monotonic() - began), self._cost / _SHARE))

    @property
    def seen(self) -> list[psutil.Process]:
        """Every process that it has come across."""
        with self._lock:
            return list(self._used)

    def look(self) -> bool:
        """Take a sample now; False if the process is gone."""
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
    """Bytes that are the process's own, with its part of what it shares where the system tells."""
    try:
        full: Any = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.uss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def end_left(seen: Iterable[psutil.Process], variable: str, value: str) -> int:
    """End what is left of a turn but this process, and return how many processes that were.

    Descendants inherit the environment, so those are found too whose parents are gone; those that write over their
    environment, as Redis does to show a title, were seen while they had parents.

    Arguments:
        seen: processes that belonged to the turn at some time.
        variable: of the environment, by which the turn's processes are marked.
        value: the turn's.
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
    """Bytes that went over the loopback interface since the machine started; None where it cannot be told."""
    counters = psutil.net_io_counters(pernic=True)
    loopback = next((counters[name] for name in ("lo", "lo0") if name in counters), None)
    return None if loopback is None else int(loopback.bytes_sent)
