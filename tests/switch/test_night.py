"""The night of the switch: producers old and new go on while a project goes over to Ray, back, and over again.

Drains, a producer and connections are killed on the way; workers are stopped as a deployment stops them. Each call
takes effect once, and each id is read by old and by new code. What a kill of a worker or of the dispatcher does to
tasks that run is no matter of switching: see tests/chaos.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest
import redis

from raycelery import Celery
from tests.support import stop, until
from tests.switch.support import Project

Make = Callable[..., Project]

#: The new code's producer: it calls until it is told to end, and writes down each call's id and kind once it is made.
PRODUCER = """
import itertools, random, sys, threading
import {module} as shop
from celery import chord
seed = int(sys.argv[1])
ended, rng = threading.Event(), random.Random(seed)
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("ready", flush=True)
with open(f"calls{{seed}}", "a") as calls:
    for i in itertools.count():
        name, kind = f"new{{seed}}.{{i}}", rng.choice(["work", "work", "quiet", "flaky", "later", "urgent", "chord"])
        if kind == "chord":
            result = chord([shop.work.s(f"{{name}}.{{part}}") for part in "ab"], shop.joined.s(name))()
        elif kind == "later":
            result = shop.work.apply_async((name,), countdown=rng.choice([1, 4]))
        elif kind == "urgent":
            result = shop.work.apply_async((name,), priority=rng.randrange(10))
        else:
            result = getattr(shop, kind).delay(name)
        print(result.id, kind, name, file=calls, flush=True)
        if ended.wait(0.01):
            break
shop.app.client.hand_over(60) if shop.app._session else None
"""


class Night:
    """The fleet of one project."""

    def __init__(self, shop: Project, seed: int) -> None:
        self.shop = shop
        self.rng = random.Random(seed)
        self.calls: list[tuple[str, str, str]] = []
        self._ended = threading.Event()
        self._old = threading.Thread(target=self._call_as_before)
        (shop.directory / "producer.py").write_text(PRODUCER.format(module=shop.module))

    def _call_as_before(self) -> None:
        number = 0
        while not self._ended.wait(0.02):
            name, kind = f"old.{number}", self.rng.choice(["work", "quiet", "flaky", "later", "chord"])
            number += 1
            if kind == "chord":
                parts = [self._signature("work", f"{name}.{part}") for part in "ab"]
                result = celery.chord(parts, self._signature("joined", name), app=self.shop.old)()
            elif kind == "later":
                result = self.shop.send("work", name, countdown=self.rng.choice([1, 4]))
            else:
                result = self.shop.send(kind, name)
            self.calls.append((result.id, kind, name))

    def _signature(self, task: str, name: str) -> Any:
        return self.shop.old.signature(f"{self.shop.module}.{task}", (name,))

    @contextlib.contextmanager
    def producers(self) -> Iterator[subprocess.Popen[str]]:
        """Let both codes call tasks meanwhile; yields the process of the new one."""
        self._old.start()
        processes = [self.shop.start("producer", str(seed), stdin=subprocess.PIPE) for seed in (1, 2)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        try:
            yield processes[0]
        finally:
            self._ended.set()
            self._old.join()
            for process in processes:
                process.communicate(timeout=90)
            for seed in (1, 2):
                made = [line.split() for line in (self.shop.directory / f"calls{seed}").read_text().splitlines()]
                # What was called within the last milliseconds before a kill may not have left the process.
                self.calls += [(task_id, kind, name) for task_id, kind, name in made[: -20 if seed == 1 else None]]

    def share(self, share: str) -> None:
        status, _, err = self.shop.call("raycelery", "switch", "set", "-A", self.shop.module, "*", share)
        assert status == 0, err
        time.sleep(2.1)  # until every producer has heard of it

    def kill_a_drain(self, *options: str) -> None:
        """Start a drain, and kill it at any moment after it has begun."""
        process = self.shop.start("raycelery", "drain", "-A", self.shop.module, *options)
        assert process.stderr is not None
        until(lambda: "draining" in (line := process.stderr.readline()) or "sending" in line, 60)
        time.sleep(self.rng.random())
        process.kill()
        process.communicate()

    def drain(self, *options: str) -> tuple[int, str]:
        status, out, err = self.shop.call("raycelery", "drain", "-A", self.shop.module, "--until-empty", *options)
        return status, out + err

    def runs(self) -> Counter[str]:
        """How often each call has taken effect, on either side."""
        lines = [*self.shop.notes(), *self.shop.notes("old")]
        return Counter(line[0] for line in lines if line[0] != "try")

    def worker(self) -> subprocess.Popen[str]:
        return self.shop.start("celery", "-A", self.shop.module, "worker", "-c", "2", "-l", "ERROR", old=True)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_night(project: Make, redis_url: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    night = Night(shop := project(ray_mode="mixed"), seed)
    worker = night.worker()
    try:
        with night.producers() as producer:
            until(lambda: sum(night.runs().values()) > 30, 120)
            night.share("50%")
            night.kill_a_drain()
            producer.kill()
            night.share("100%")
            stop(worker)
            night.kill_a_drain()
            drain = shop.start("raycelery", "drain", "-A", shop.module)
            until(lambda: len(shop.notes()) > 60, 120)
            with redis.Redis.from_url(redis_url) as client:
                client.client_kill_filter(_type="normal", skipme=True)
            drain.kill()
            drain.communicate()
            night.share("back")
            night.kill_a_drain("--to-broker")
            worker = night.worker()
            before = len(shop.notes("old"))
            until(lambda: len(shop.notes("old")) > before + 10, 120)
            night.share("100%")
        stop(worker)
        assert night.drain("--to-broker")[1]
        status, said = night.drain()
        assert status == 0, said
    finally:
        stop(worker)
    names = [name for _, kind, name in night.calls for name in ([name] if kind != "chord" else _of_chord(name))]
    assert len(names) == len(set(names)) > 200
    until(lambda: not set(names) - set(night.runs()), 90, lambda: (seed, sorted(set(names) - set(night.runs()))))
    twice = {name: count for name, count in night.runs().items() if count > 1}
    assert not twice, (seed, twice)
    new = Celery(shop.module, backend=redis_url, broker=redis_url, set_as_current=False, ray_mode="mixed")
    old = celery.Celery(shop.module, backend=redis_url, set_as_current=False)
    for task_id, kind, name in night.calls:
        if kind != "quiet":
            for app in (old, new):
                result = app.AsyncResult(task_id)
                until(result.ready, 30, lambda: (seed, kind, name, task_id, result.state, shop.trail(name)))  # noqa: B023
                assert result.result == name, (seed, kind, name, task_id)


def _of_chord(name: str) -> list[str]:
    return [f"{name}.a", f"{name}.b", name]
