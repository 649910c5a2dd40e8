"""The dispatcher is killed at chosen moments: before it writes to its journal, acknowledges, assigns or pushes results.

`strace` kills it as it enters its n-th such call, whichever that is: https://man7.org/linux/man-pages/man1/strace.1.html.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from functools import partial

import pytest
from celery.exceptions import WorkerLostError

from raycelery.protocol import questions
from tests.chaos import work
from tests.chaos.work import again, once
from tests.support import RaySession, until

SECONDS = 120
ROUNDS = int(os.environ.get("RAYCELERY_CHAOS_KILLS", 3))
#: What writes to the journal, and what sends frames.
CALLS = "write,sendto,sendmsg"

pytestmark = [
    pytest.mark.timeout(60 + 60 * ROUNDS),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def test_before_each_write_acknowledgement_and_push(ray_session: RaySession, path: str) -> None:
    seed = int(os.environ.get("RAYCELERY_CHAOS_SEED", random.randrange(10**6)))
    rng, ends, index = random.Random(seed), Counter[str](), 0
    print(f"RAYCELERY_CHAOS_SEED={seed} RAYCELERY_CHAOS_KILLS={ROUNDS}")
    client = work.app.client
    for _ in range(ROUNDS):
        again.delay(path, 0, 0.0).get(timeout=SECONDS)
        pid = client.call(questions.Stats())["pid"]
        tracer = subprocess.Popen(
            ["strace", "-f", "-q", "-p", str(pid), "-o", os.devnull, "-e", f"trace={CALLS}",
             "-e", f"inject={CALLS}:signal=KILL:when={rng.randrange(1, 60)}"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            until(partial(_traced, pid), SECONDS)
            results = {}
            # How many calls a task costs depends on how many leave together.
            deadline = time.monotonic() + SECONDS
            while not _ended(pid):
                assert time.monotonic() < deadline, "it was not killed"
                for _ in range(20):
                    index += 1
                    task = again if index % 3 == 0 else once
                    results[index] = task.delay(path, index, rng.choice([0.001, 0.02]))
                results[index].get(timeout=SECONDS, propagate=False)
        finally:
            tracer.kill()
            tracer.wait()
            assert tracer.stderr is not None
            tracer.stderr.close()
        for number, result in results.items():
            try:
                assert result.get(timeout=SECONDS) == number
                ends["ended"] += 1
            except WorkerLostError:
                assert number % 3, f"{number} may run again"
                ends["lost"] += 1
    begun = work.begun(path)
    print(dict(ends), "began again:", sum(count > 1 for number, count in begun.items() if number))
    assert {number: count for number, count in begun.items() if number % 3 and count > 1} == {}
    assert len(begun) - 1 >= index - ends["lost"]


def _traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in _status(pid)


def _ended(pid: int) -> bool:
    status = _status(pid)
    return not status or "State:\tZ" in status


def _status(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/status") as file:
            return file.read()
    except FileNotFoundError:
        return ""
