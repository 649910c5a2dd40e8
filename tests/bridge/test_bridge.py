"""Celery's worker with the pool on Ray: what a stock producer sees, on Redis."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError

from tests.bridge.support import Project, Worker
from tests.support import until

Make = Callable[..., Project]
Start = Callable[..., Worker]


def test_results_errors_retries_canvas_and_resources(project: Make, bridge_worker: Start) -> None:
    shop = project()
    bridge_worker(shop)
    assert shop.send("add", 2, 3).get(timeout=60) == 5
    with pytest.raises(ValueError, match="no good"):
        shop.send("fail", "no good").get(timeout=60)
    assert shop.send("flaky", 2).get(timeout=60) == 2
    with pytest.raises(OSError, match="again"):
        shop.send("flaky", 9).get(timeout=60)
    add = shop.app.signature(f"{shop.module}.add")
    header = [add.clone((i, i)) for i in range(4)]
    assert group(header, app=shop.app).apply_async().get(timeout=60) == [0, 2, 4, 6]
    assert chain(add.clone((1, 1)), add.clone((5,)), app=shop.app).apply_async().get(timeout=60) == 7
    total = shop.app.signature(f"{shop.module}.total")
    assert chord(header, total, app=shop.app).apply_async().get(timeout=60) == 12
    results = [shop.send("add", i, 1) for i in range(300)]
    assert [result.get(timeout=60) for result in results] == list(range(1, 301))
    # In processes of Ray, with what the task asked for.
    _, cpus = shop.send("where").get(timeout=60)
    assert cpus == 2


def test_errors_that_are_hard_to_carry(project: Make, bridge_worker: Start) -> None:
    shop = project(
        more="""
import asyncio
import sys


@app.task(acks_late=True, reject_on_worker_lost=True)
def only_there():
    trace("only")
    sys.path.append(str(HERE / "only"))
    import only_there

    raise only_there.ModelError("EWR")


@app.task
def cancelled():
    raise asyncio.CancelledError("by hand")


@app.task
def leaves():
    sys.exit("no database")
"""
    )
    (shop.directory / "only").mkdir()
    (shop.directory / "only" / "only_there.py").write_text("class ModelError(Exception):\n    pass\n")
    worker = bridge_worker(shop)
    result = shop.send("only_there")
    error = result.get(timeout=60, propagate=False)
    assert (type(error).__name__, str(error), result.state) == ("ModelError", "EWR", "FAILURE")
    worker.wait_for_log("ModelError")
    assert len(shop.traces("only")) == 1, "its message was not given back"
    # As Celery stores it, for readers that have nothing but Celery.
    stored = json.loads(shop.app.backend.get(shop.app.backend.get_key_for_task(result.id)))["result"]
    assert stored == {"exc_type": "ModelError", "exc_message": ["EWR"], "exc_module": "only_there"}
    with pytest.raises(asyncio.CancelledError, match="by hand"):
        shop.send("cancelled").get(timeout=60)
    with pytest.raises(WorkerLostError, match=r"ended its process by raising SystemExit\('no database'\)"):
        shop.send("leaves").get(timeout=60)
    unknown = shop.send("no_such_task").get(timeout=60, propagate=False)
    assert type(unknown).__name__ == "NotRegistered"


def test_a_project_that_imports_plain_celery(project: Make, bridge_worker: Start) -> None:
    shop = project(package="celery")
    worker = bridge_worker(shop, "-P", "custom", env={"CELERY_CUSTOM_WORKER_POOL": "raycelery.bridge:Pool"})
    assert shop.send("add", 2, 3).get(timeout=60) == 5
    assert shop.send("flaky", 1).get(timeout=60) == 1
    _, cpus = shop.send("where").get(timeout=60)
    assert cpus == 2
    pool = shop.app.control.inspect([worker.node]).stats()[worker.node]["pool"]
    assert pool["implementation"] == "raycelery.bridge.pool:Pool"


def test_time_limits_lost_executors_and_revocation(project: Make, bridge_worker: Start) -> None:
    shop = project(task_track_started=True)
    worker = bridge_worker(shop, "--concurrency", "3")
    soft, hard = shop.send("soft"), shop.send("hard")
    lost, deadly = shop.send("dies", "lost"), shop.send("deadly", "deadly")
    assert soft.get(timeout=60) == "SoftTimeLimitExceeded"
    with pytest.raises(TimeLimitExceeded):
        hard.get(timeout=60)
    with pytest.raises(WorkerLostError):
        lost.get(timeout=60)
    assert len(shop.traces("lost")) == 1
    # Delivered again as reject_on_worker_lost has it, but not for ever.
    with pytest.raises(WorkerLostError, match="delivered 3 times"):
        deadly.get(timeout=60)
    assert len(shop.traces("deadly")) == 3

    running = [shop.send("late", f"run{i}", 60) for i in range(3)]
    until(lambda: all(shop.traces(f"run{i}") for i in range(3)))
    waiting = shop.send("late", "waiting", 60)
    shop.app.control.revoke(waiting.id)
    shop.app.control.revoke(running[0].id, terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError):
        running[0].get(timeout=60)
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=60)
    assert not shop.traces("waiting")
    shop.go()
    assert [result.get(timeout=60) for result in running[1:]] == ["run1", "run2"]
    assert worker.process.poll() is None


def test_concurrency_is_that_of_the_cluster_and_can_be_changed(project: Make, bridge_worker: Start) -> None:
    shop = project(ray_num_cpus=0.1)
    worker = bridge_worker(shop, concurrency=2)
    results = [shop.send("late", f"one{i}", 60) for i in range(4)]

    def begun() -> int:
        return sum(bool(shop.traces(f"one{i}")) for i in range(4))

    until(lambda: begun() == 2)
    shop.app.control.pool_grow(1, destination=[worker.node])
    until(lambda: begun() == 3)

    def active() -> set[str]:
        return {task["id"] for task in shop.app.control.inspect([worker.node]).active()[worker.node]}

    until(lambda: len(active()) == 3)
    assert active() <= {result.id for result in results}
    shop.go()
    assert {result.get(timeout=60) for result in results} == {f"one{i}" for i in range(4)}


def test_a_warm_shutdown_ends_what_runs_and_leaves_the_rest(project: Make, bridge_worker: Start) -> None:
    shop = project()
    worker = bridge_worker(shop, concurrency=2)
    results = [shop.send("late", f"warm{i}", 60) for i in range(2)]
    until(lambda: all(shop.traces(f"warm{i}") for i in range(2)))
    left = shop.send("late", "left", 0)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    # Remote control works on: what is revoked now is ended now.
    shop.app.control.revoke(results[1].id, terminate=True)
    with pytest.raises(TaskRevokedError):
        results[1].get(timeout=30)
    assert worker.process.poll() is None
    shop.go()
    assert results[0].get(timeout=60) == "warm0"
    assert worker.process.wait(30) == 0
    assert not shop.traces("left")
    bridge_worker(shop)
    assert left.get(timeout=60) == "left"


def test_a_cold_shutdown_requeues_what_is_not_acknowledged(project: Make, bridge_worker: Start) -> None:
    shop = project()
    worker = bridge_worker(shop, concurrency=2)
    result = shop.send("late", "cold", 60)
    until(lambda: shop.traces("cold"))
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(30)
    assert len(shop.traces("cold")) == 1
    bridge_worker(shop, concurrency=2)
    until(lambda: len(shop.traces("cold")) == 2)
    shop.go()
    assert result.get(timeout=60) == "cold"


AGAIN = """
from celery.exceptions import Reject


@app.task(acks_late=True)
def not_yet(name):
    trace(name)
    if not (HERE / "go").exists():
        raise Reject("not yet", requeue=True)
    return "now"
"""


def test_a_message_that_its_task_puts_back_runs_again(project: Make, bridge_worker: Start) -> None:
    shop = project(more=AGAIN)
    bridge_worker(shop)
    result = shop.send("not_yet", "again")
    until(lambda: len(shop.traces("again")) >= 3, 60)
    shop.go()
    assert result.get(timeout=60) == "now"
