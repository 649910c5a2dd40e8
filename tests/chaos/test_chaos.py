"""Processes are killed with SIGKILL under load; then the whole history is looked at.

Longer, by the environment: `RAYCELERY_CHAOS_TASKS`, `RAYCELERY_CHAOS_KILLS`; again as it was: `RAYCELERY_CHAOS_SEED`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from celery import chord, states
from celery.exceptions import TimeoutError, WorkerLostError
from celery.result import AsyncResult

from raycelery.protocol import questions
from tests.chaos import work
from tests.chaos.kills import Kills
from tests.chaos.work import again, collect, once
from tests.support import ROOT, RaySession, stop, until

TASKS = int(os.environ.get("RAYCELERY_CHAOS_TASKS", 600))
KILLS = int(os.environ.get("RAYCELERY_CHAOS_KILLS", 8))
#: Far more than all of it takes: who waits longer hangs.
SECONDS = 100 + KILLS * 10

pytestmark = pytest.mark.timeout(2 * SECONDS)


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("RAYCELERY_CHAOS_SEED", random.randrange(10**6)))
    print(f"RAYCELERY_CHAOS_SEED={seed} RAYCELERY_CHAOS_TASKS={TASKS} RAYCELERY_CHAOS_KILLS={KILLS}")
    return random.Random(seed)


def end_of(result: AsyncResult) -> str:
    """Return what became of a task: "ended", or "lost"."""
    try:
        result.get(timeout=SECONDS)
    except WorkerLostError:
        return "lost"
    return "ended"


def _why(result: AsyncResult) -> str:
    """Say what is with a task that has not ended; "" if it has."""
    return "" if result.state == states.SUCCESS else f"{result.state}: {work.app.client.call(questions.Why(result.id))}"


def see_that_none_is_left(kills: Kills, path: str) -> None:
    until(lambda: not kills.left(work.pids(path)), 60, lambda: f"executors of nobody run: {kills.left(set())}")


def test_none_is_lost_and_none_begins_twice(ray_session: RaySession, path: str, rng: random.Random) -> None:
    once.delay(path, 0, 0.0).get(timeout=SECONDS)
    results: dict[int, AsyncResult] = {}
    with Kills(rng, {"executor": 2, "dispatcher": 1}, KILLS) as kills:
        for index in range(1, TASKS + 1):
            task = again if index % 3 == 0 else once
            # Mostly so short that executors are given many at a time.
            seconds = rng.choice([0.001, 0.001, 0.001, 0.05])
            results[index] = task.delay(path, index, seconds)
            if index % 50 == 0:
                results[index - rng.randrange(50)].get(timeout=SECONDS, propagate=False)
        ends = {index: end_of(result) for index, result in results.items()}
    begun = work.begun(path)
    twice = sum(count > 1 for count in begun.values())
    print(f"killed: {dict(kills.killed)}; {dict(Counter(ends.values()))}; began again: {twice}")
    may_begin_once = [index for index in results if index % 3]
    assert {index: begun[index] for index in may_begin_once if begun[index] > 1} == {}
    assert [index for index in may_begin_once if ends[index] == "ended" and not begun[index]] == []
    late = [index for index in results if not index % 3]
    assert {index: ends[index] for index in late if ends[index] != "ended"} == {}
    assert [index for index in late if not begun[index]] == []
    assert all(result.state in (states.SUCCESS, states.FAILURE) for result in results.values())
    see_that_none_is_left(kills, path)


def test_a_chord_under_kills_of_its_executors(ray_session: RaySession, path: str, rng: random.Random) -> None:
    size = max(200, TASKS // 10)
    again.delay(path, 0, 0.0).get(timeout=SECONDS)
    with Kills(rng, {"executor": 1}, KILLS, pause=(0.1, 0.5)) as kills:
        result = chord(
            [again.s(path, index, rng.choice([0.02, 0.05])) for index in range(1, size)], collect.s(path)
        ).apply_async()
        until(lambda: len(work.begun(path)) >= size - 20, SECONDS)
    try:
        values = result.get(timeout=SECONDS)
    except TimeoutError:
        pytest.fail("\n".join(map(_why, [result, *result.parent.results])))
    assert sorted(values) == list(range(1, size))
    assert work.begun(path)[-1] == 1
    print(f"killed: {dict(kills.killed)}")
    see_that_none_is_left(kills, path)


def test_what_a_killed_program_has_handed_over_runs(ray_session: RaySession, path: str, rng: random.Random) -> None:
    once.delay(path, -1, 0.0).get(timeout=SECONDS)
    taken: dict[int, str] = {}
    for first in (0, 1_000, 2_000):
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver", path, str(first), "1000"],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": ray_session.address, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert program.stdout is not None
            for _ in range(rng.randrange(1, 10)):
                start, *ids = program.stdout.readline().split()
                taken.update(enumerate(ids, int(start)))
            program.kill()
        finally:
            stop(program)
            program.stdout.close()
    for task_id in taken.values():
        assert end_of(work.app.AsyncResult(task_id)) == "ended"
    begun = work.begun(path)
    assert all(begun[index] == 1 for index in taken)
    assert max(begun.values()) == 1
