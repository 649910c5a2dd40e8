"""Bridges beside stock workers, bridges that scale, and bridges that run for long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

import raycelery
from raycelery.protocol import questions
from tests.bridge import support as bridge
from tests.bridge.support import Project, Worker, runs
from tests.support import until

Make = Callable[..., Project]
Start = Callable[..., Worker]


@pytest.fixture
def stock_worker() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda shop, *arguments, **options: stack.enter_context(bridge.worker(shop, *arguments, **options))


def test_a_stock_worker_and_a_bridge_share_a_queue(project: Make, bridge_worker: Start, stock_worker: Start) -> None:
    shop = project(package="celery")
    stock = stock_worker(shop, concurrency=1)
    bridge_worker(shop, "-P", "custom", concurrency=1, env={"CELERY_CUSTOM_WORKER_POOL": "raycelery.bridge:Pool"})
    results = [shop.send("late", f"one{i}", 0.05) for i in range(60)]
    assert [result.get(timeout=60) for result in results] == [f"one{i}" for i in range(60)]
    ran = [line[0] for i in range(60) for line in shop.traces(f"one{i}") if line[2] == "begin"]
    assert len(ran) == 60
    children = {str(child.pid) for child in psutil.Process(stock.process.pid).children(recursive=True)}
    assert children & set(ran)
    assert set(ran) - children


def test_it_scales_with_what_waits(project: Make, bridge_worker: Start) -> None:
    shop = project(ray_num_cpus=0.1)
    bridge_worker(shop, "--autoscale=3,1")
    results = [shop.send("late", f"one{i}", 60) for i in range(4)]
    until(lambda: sum(bool(shop.traces(f"one{i}")) for i in range(4)) == 3)
    shop.go()
    assert {result.get(timeout=60) for result in results} == {f"one{i}" for i in range(4)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_stays_flat(project: Make, bridge_worker: Start) -> None:
    """100,000 messages; RAYCELERY_SOAK_MESSAGES says otherwise."""
    shop = project(task_ignore_result=True)
    worker = bridge_worker(shop, "-l", "WARNING")
    process = psutil.Process(worker.process.pid)
    portion = int(os.environ.get("RAYCELERY_SOAK_MESSAGES", "100000")) // 5
    sizes = []
    for _ in range(5):
        for value in range(portion):
            shop.send("add", value, 1, ignore_result=True)
        until(lambda: not shop.app.control.inspect([worker.node]).reserved()[worker.node] and _empty(shop), 600)
        sizes.append(process.memory_info().rss)
    assert sizes[-1] < sizes[1] * 1.1 + 5e6, sizes


def _empty(shop: Project) -> bool:
    with shop.app.connection_for_read() as connection:
        return not connection.default_channel.client.llen("celery")


def test_producers_that_were_moved_share_its_dispatcher(project: Make, bridge_worker: Start) -> None:
    shop = project()
    bridge_worker(shop, concurrency=1)
    old = shop.send("early", "old", 60)
    until(lambda: runs(shop, "old"))
    moved = raycelery.Celery(shop.module, set_as_current=False)
    # What the bridge runs is its own worker's to tell of, and no obstacle.
    assert list((moved.control.inspect(timeout=30).active() or {}).values()) == [[]]
    assert moved.client.call(questions.Overview())["running"] == []
    assert moved.control.time_limit(f"{shop.module}.early", hard=50, reply=True, timeout=30)
    shop.go()
    assert old.get(timeout=60) == "old"
