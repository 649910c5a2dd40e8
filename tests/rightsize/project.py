"""A project whose tasks use known amounts of CPU, time and memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from celery import chord

from raycelery import Celery

app = Celery("rightsize-tests")


def _compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@app.task
def compute(seconds: float) -> None:
    _compute(seconds)


@app.task(num_cpus=0.5)
def wait(seconds: float, cpu: float = 0.0) -> None:
    time.sleep(seconds)
    _compute(cpu)


@app.task
def hold(megabytes: int) -> None:
    """Hold memory for no longer than it takes to fill it: no sampling sees that."""
    bytearray(megabytes * 1_000_000)


@app.task
def child(seconds: float, megabytes: int = 0) -> None:
    code = f"import time; x = bytearray({megabytes * 1_000_000}); time.sleep({1.5 if megabytes else 0})\n"
    code += f"while time.process_time() < {seconds}: pass"
    subprocess.run([sys.executable, "-c", code], check=True)


@app.task
def threads(seconds: float) -> None:
    def hashes() -> None:  # without Python's lock
        data, end = bytes(1_000_000), time.thread_time() + seconds
        while time.thread_time() < end:
            hashlib.sha256(data)

    both = [threading.Thread(target=hashes) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()


@app.task
def outer(seconds: float) -> None:
    compute.apply((seconds,))  # in this process


@app.task
def parent(seconds: float) -> None:
    compute.delay(seconds)


@app.task(ignore_result=True)
def fails() -> None:
    raise ValueError("as it should")


def calls() -> Iterator[Any]:
    for number in range(20):
        yield compute.s(0.05)
        yield wait, (0.15, 0.02 + number / 1000)


@app.task
def combine(results: list[Any]) -> int:
    return len(results)


def night() -> list[Any]:
    """One night's batch: many zones, and what runs once when all are done."""
    return [chord([wait.s(0.02) for _ in range(30)], combine.s())]


def by_name(quick: bool) -> list[Any]:
    assert not quick
    return [("tests.rightsize.project.wait", [0.1], {"cpu": 0.01})]


def many() -> list[Any]:
    return [wait.s(0.5) for _ in range(500)]


def failing() -> list[Any]:
    return [fails.s()]
