"""What is sampled of a tree of processes, and that nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import psutil
import pytest

from bench.sampling import Sampler, end_left
from bench.workloads.headline import ideal, lengths

#: Burns CPU time, not wall time, in a grandchild that ends when it is told to, before the child does.
BURN = "import time\nwhile time.process_time() < 0.5: pass\nprint('burnt', flush=True)\ninput()"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
print("ended", flush=True)
sys.stdin.read()
"""


def test_a_process_that_has_ended_still_counts() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    sampler = Sampler(process.pid)
    sampler.start()
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "burnt\n"
    assert sampler.look()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ended\n"
    assert sampler.look()
    usage = sampler.finish()
    process.communicate("")
    assert usage.cpu[-1] > 0.45  # the system counts in hundredths
    assert usage.cpu == sorted(usage.cpu)
    assert max(usage.processes) == 2
    assert usage.processes[-1] == 1
    assert max(usage.memory) > 1_000_000
    assert len(usage.time) == len(usage.cpu) == len(usage.memory)


def test_orphans_are_found_by_their_mark() -> None:
    mark = uuid.uuid4().hex
    orphan = "import time; print('up', flush=True); time.sleep(100)"
    start = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {orphan!r}], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         start_new_session=True)
child.stdout.readline()
print(child.pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", start], env={**os.environ, "MARK": mark}, capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    assert psutil.pid_exists(pid)
    assert end_left([], "MARK", "another") == 0
    assert end_left([], "MARK", mark) == 1
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_was_seen_is_ended_though_it_hides_its_environment() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], env={})
    sampler = Sampler(process.pid)
    assert sampler.look()
    assert end_left(sampler.seen, "MARK", "any") == 1
    assert not psutil.pid_exists(process.pid)
    assert end_left(sampler.seen, "MARK", "any") == 0


def test_the_ideal_makespan_is_that_of_slots_that_never_wait() -> None:
    assert ideal([1.0] * 4, 2) == 2.0
    assert ideal([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    drawn = lengths(1500, 1.6)
    assert sum(drawn) == pytest.approx(1.6 * 1500, rel=0.001)
    assert max(drawn) > 3 * 1.6
    assert drawn == lengths(1500, 1.6)
