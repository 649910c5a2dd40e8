"""Each call goes to Ray or to the broker, by shares that are changed while producers run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raycelery import Celery
from raycelery.errors import OptionError
from raycelery.protocol import questions
from tests import support as servers
from tests.support import until
from tests.switch.support import Project

Make = Callable[..., Project]

#: A producer of the new code: it reads lines `task share-of-what count` and prints ids.
PRODUCER = """
import sys
import {module}
from celery import chord, group
for line in sys.stdin:
    task, count = line.split()
    if task == "chord":
        results = [chord([{module}.work.s(f"part{{i}}") for i in range(int(count))], {module}.total.s())()]
    else:
        results = [getattr({module}, task).delay(f"{{task}}{{i}}") for i in range(int(count))]
    print(*[result.id for result in results], flush=True)
"""


class Producer:
    """A process that calls tasks, and stays."""

    def __init__(self, shop: Project) -> None:
        (shop.directory / "producer.py").write_text(PRODUCER.format(module=shop.module))
        self.process = shop.start("producer", stdin=subprocess.PIPE)

    def call(self, task: str, count: int) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{task} {count}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()


@pytest.fixture
def mixed(project: Make) -> Iterator[tuple[Project, Producer]]:
    """A project in mixed mode, a worker with its old code, and a producer with its new one."""
    shop = project(ray_mode="mixed", ray_share={"*.work": 0.5, "*.flaky": 0.5, "*.total": 1})
    worker = shop.start("celery", "-A", shop.module, "worker", "-P", "solo", "-l", "WARNING", old=True)
    producer = Producer(shop)
    yield shop, producer
    for process in (worker, producer.process):
        process.kill()
        process.communicate()


def _sides(shop: Project, name: str = "") -> tuple[set[str], set[str]]:
    """Names of the calls that ran on Ray, and on the worker."""
    here, there = ({line[0] for line in shop.notes(folder) if line[0].startswith(name)} for folder in (".", "old"))
    return here, there


def test_calls_are_shared_and_retried_on_their_side_and_read_by_all(mixed: tuple[Project, Producer]) -> None:
    shop, producer = mixed
    ids = producer.call("work", 60)
    assert [shop.old.AsyncResult(one).get(timeout=90) for one in ids] == [f"work{i}" for i in range(60)]
    here, there = _sides(shop, "work")
    assert len(here) + len(there) == 60
    assert not here & there
    assert 10 < len(here) < 50
    retried = producer.call("flaky", 20)
    for i, one in enumerate(retried):
        result = shop.old.AsyncResult(one)
        until(result.ready, 40, lambda: (result.state, shop.trail(f"flaky{i}")))  # noqa: B023  (it is called here)
        assert result.result == f"flaky{i}"
    here, there = _sides(shop, "flaky")
    assert here
    assert there
    tries = [{line[1] for line in shop.notes(folder) if line[0] == "try"} for folder in (".", "old")]
    assert tries == [here, there], "all tries of a call are on one side"
    (chord,) = producer.call("chord", 10)
    assert shop.old.AsyncResult(chord).get(timeout=90) == 50
    here, there = _sides(shop, "part")
    assert here
    assert there
    assert sum(line[0] == "total" for folder in (".", "old") for line in shop.notes(folder)) == 1
    code, out, err = shop.call("raycelery", "switch", "set", "-A", shop.module, "*.work", "100%")
    assert (code, out) == (0, "*.work: 100% on Ray\n"), err

    def all_here() -> bool:
        names = shop.notes(), shop.notes("old")
        found = producer.call("work", 8)
        for one in found:
            shop.old.AsyncResult(one).get(timeout=90)
        return len(shop.notes()) - len(names[0]) == 8

    until(all_here, 60)
    _, out, err = shop.call("raycelery", "switch", "status", "-A", shop.module)
    assert f"{shop.module}.work" in out, out + err
    said = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert said[f"{shop.module}.work"][1:4] == ["100%,", "set", "live"], out + err
    assert said[f"{shop.module}.flaky"][1] == "50%"
    assert said[f"{shop.module}.quiet"][1] == "0%"
    assert int(said[f"{shop.module}.work"][4]) >= 8
    assert "on Ray: 0 waiting" in out
    code, out, err = shop.call("raycelery", "switch", "set", "-A", shop.module, "*.work", "back")
    assert (code, out) == (0, "*.work: 0% on Ray\n"), err
    until(lambda: not all_here(), 60)
    code, out, err = shop.call("raycelery", "switch", "set", "-A", shop.module, "*.work", "unset")
    assert (code, out) == (0, "none is set live\n"), err
    code, _, err = shop.call("raycelery", "switch", "set", "-A", shop.module, "nothing.*", "5%")
    assert code == 2
    assert "matches none" in err


def test_without_a_cluster_calls_go_to_the_broker(project: Make) -> None:
    shop = project(ray_mode="mixed", ray_share=1, ray_reconnect_seconds=1)
    shop.address = f"127.0.0.1:{servers.free_port()}"
    producer = Producer(shop)
    try:
        ids = producer.call("work", 3)
        assert len(ids) == 3, producer.process.communicate()
        with shop.old.connection() as connection:
            assert connection.default_channel.client.llen("celery") == 3
    finally:
        producer.process.kill()
        said = producer.process.communicate()[1]
    assert "calls go to the broker until the cluster can be reached" in said


def test_a_cluster_that_is_lost_is_left_out_and_found_again(project: Make) -> None:
    shop = project(ray_mode="mixed", ray_share=1)
    producer = Producer(shop)
    try:
        (first,) = producer.call("work", 1)
        until(lambda: shop.old.AsyncResult(first).ready(), 60)
        dispatcher = Celery(shop.module, set_as_current=False).client.call(questions.Stats())["pid"]
        os.kill(dispatcher, signal.SIGKILL)
        ids = [first]

        def both() -> bool:
            ids.extend(producer.call("quiet", 1))
            with shop.old.connection() as connection:
                waiting = connection.default_channel.client.llen("celery")
            return bool(waiting) and len(shop.notes()) > 3

        until(both, 90, shop.notes, every=0.05)
    finally:
        producer.process.kill()
        said = producer.process.communicate()[1]
    assert "calls go to the broker until the cluster can be reached: the connection is lost" in said
    assert "the cluster can be reached again" in said


@pytest.mark.parametrize("share", [1.5, -1, True, {"a": 2}, "half", {"a": "1"}])
def test_a_share_that_is_none_is_refused(share: Any) -> None:
    with pytest.raises(OptionError, match="ray_share"):
        Celery("mixed", set_as_current=False, ray_share=share)


def test_mixed_mode_wants_a_result_backend_that_both_sides_reach() -> None:
    app = Celery("mixed", broker="redis://", set_as_current=False, ray_mode="mixed")
    with pytest.raises(OptionError, match="ray_mode='mixed' with result_backend=None"):
        app.AsyncResult("any")
