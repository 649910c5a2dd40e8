"""Reads from the operating system: memory and its peak, CPU time of children, time spent waiting for a CPU."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import psutil

_LINUX = sys.platform == "linux"


def private_memory() -> tuple[int, int | None]:
    """Return the bytes of memory of this process, and the peak since :func:`forget_peak`, None if not known.

    Shared memory is not included: it is Ray's object store, which has its own memory on each node.
    """
    if not _LINUX:
        return int(psutil.Process().memory_info().rss), None
    found = {}
    with open("/proc/self/status", "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            if name in (b"VmHWM", b"VmRSS", b"RssShmem"):
                found[name] = int(value.split()[0]) * 1024
    shared = found.get(b"RssShmem", 0)
    peak = found[b"VmHWM"] - shared if b"VmHWM" in found else None
    return found[b"VmRSS"] - shared, peak


def forget_peak() -> bool:
    """Reset the system's peak of this process's memory; return whether that is possible."""
    if not _LINUX:
        return False
    try:
        # https://docs.kernel.org/filesystems/proc.html: "reset the peak resident set size"
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def seconds_without_cpu() -> float:
    """Return the seconds that this thread has waited for a CPU so far; 0 if not known."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def cpu_of_ended_children() -> float:
    """Return the CPU seconds of children that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def children() -> list[psutil.Process]:
    """Return all descendants of this process. Takes milliseconds, as all processes of the machine are read."""
    try:
        return list(psutil.Process(os.getpid()).children(recursive=True))
    except psutil.Error:
        return []


def cpu_of(processes: list[psutil.Process]) -> float:
    """Return the CPU seconds of processes, and of those of their children that have ended."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_of(processes: list[psutil.Process]) -> int:
    """Return the bytes that are not shared with other processes (USS): a fork shares most pages with its parent."""
    total = 0
    for process in processes:
        try:
            total += int(process.memory_full_info().uss)
        except psutil.AccessDenied:
            with contextlib.suppress(psutil.Error):
                total += int(process.memory_info().rss)
        except psutil.Error:
            continue
    return total
