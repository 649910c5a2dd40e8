"""What else Celery's worker does, with the pool on Ray: events, rate limits, its processes, how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import celery
import pytest
import redis
from celery.exceptions import WorkerLostError

import raycelery
from raycelery.protocol import questions
from tests.bridge.support import Project, Worker, runs
from tests.support import ROOT, stop, until

Make = Callable[..., Project]
Start = Callable[..., Worker]

MORE = """
@app.task(rate_limit="4/s")
def limited(name):
    trace(name)


HOARD = []


@app.task
def hoard(mebibytes):
    HOARD.append(b"x" * (mebibytes << 20))
    return os.getpid()


@app.task
def passes_on(value):
    return add.apply_async((value, 1), queue="elsewhere").id


@app.task
def version():
    return 1
"""


def test_events_tell_of_every_task(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE)
    worker = bridge_worker(shop, "-E")
    seen: dict[str, list[dict[str, Any]]] = {}
    ready = threading.Event()

    def listen() -> None:
        with shop.app.connection_for_read() as connection:
            receiver = shop.app.events.Receiver(connection, handlers={"*": note})
            for _ in receiver.itercapture(limit=None, timeout=60, wakeup=True):
                if ready.is_set():
                    return

    def note(event: dict[str, Any]) -> None:
        seen.setdefault(event.get("uuid", ""), []).append(event)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        until(lambda: any(event["type"] == "worker-heartbeat" for event in seen.get("", [])))
        good, bad, again = shop.send("add", 1, 2), shop.send("fail", "no"), shop.send("flaky", 1)
        assert good.get(timeout=60) == 3
        assert again.get(timeout=60) == 1
        with pytest.raises(ValueError, match="no"):
            bad.get(timeout=60)
        running = shop.send("late", "run", 60)
        until(lambda: runs(shop, "run"))
        shop.app.control.revoke(running.id, terminate=True)

        def kinds(result: Any) -> list[str]:
            return [event["type"] for event in seen.get(result.id, [])]

        until(lambda: kinds(running)[-1:] == ["task-revoked"])
        until(lambda: kinds(good)[-1:] == ["task-succeeded"] and kinds(bad)[-1:] == ["task-failed"])
        assert kinds(good) == ["task-received", "task-started", "task-succeeded"]
        assert kinds(bad) == ["task-received", "task-started", "task-failed"]
        # The second run comes by the broker, too.
        until(lambda: len(kinds(again)) == 6, say=lambda: str(kinds(again)))
        assert Counter(kinds(again)) == {
            "task-received": 2, "task-started": 2, "task-retried": 1, "task-succeeded": 1,
        }  # fmt: skip
        assert {event["hostname"] for event in seen[good.id]} == {worker.node}
        assert seen[good.id][2]["runtime"] >= 0
    finally:
        ready.set()
        shop.send("add", 0, 0)  # wakes the listener
        listener.join(60)


def test_what_tasks_call_goes_by_the_broker_too(project: Make, bridge_worker: Start, redis_url: str) -> None:
    shop = project(more=MORE)
    bridge_worker(shop)
    called = shop.send("passes_on", 5).get(timeout=60)
    [message] = redis.Redis.from_url(redis_url).lrange("elsewhere", 0, -1)
    assert json.loads(message)["headers"]["id"] == called
    # The queue is another project's.
    bridge_worker(shop, "-Q", "elsewhere", concurrency=1)
    assert shop.app.AsyncResult(called).get(timeout=60) == 6


def test_rate_limits(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE)
    worker = bridge_worker(shop)
    results = [shop.send("limited", "limited") for _ in range(9)]
    others = [shop.send("add", i, i) for i in range(20)]
    # What is limited holds nothing else back.
    assert [result.get(timeout=60) for result in others] == [2 * i for i in range(20)]
    for result in results:
        result.get(timeout=60)
    times = [float(line[1]) for line in shop.traces("limited")]
    assert times[-1] - times[0] > 8 / 4 * 0.8
    shop.app.control.rate_limit(f"{shop.module}.limited", "1000/s", destination=[worker.node], reply=True)
    for result in [shop.send("limited", "free") for _ in range(40)]:
        result.get(timeout=60)
    times = [float(line[1]) for line in shop.traces("free")]
    assert times[-1] - times[0] < 39 / 4 * 0.8


def test_executors_end_after_so_many_tasks_or_so_much_memory(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE, worker_max_tasks_per_child=3)
    worker = bridge_worker(shop, concurrency=1)
    pids = [shop.send("pid").get(timeout=60) for _ in range(9)]
    # An executor on CPUs that another application lends ends when they are called in, maybe before its third task.
    assert max(pids.count(pid) for pid in pids) == 3
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(60)
    # The command line counts more than the settings, and memory is in kibibytes as in Celery.
    bridge_worker(shop, "--max-tasks-per-child=1000", "--max-memory-per-child=500000", concurrency=1)
    # For the same reason there may be two.
    small = {shop.send("hoard", 1).get(timeout=60) for _ in range(6)}
    assert len(small) <= 2
    large = shop.send("hoard", 500).get(timeout=60)
    assert shop.send("hoard", 1).get(timeout=60) != large


def test_a_soft_shutdown_waits_for_what_is_soon_done(project: Make, bridge_worker: Start) -> None:
    shop = project(worker_soft_shutdown_timeout=4.0)
    worker = bridge_worker(shop, concurrency=2)
    short, long = shop.send("late", "short", 1.5), shop.send("late", "long", 60)
    until(lambda: runs(shop, "short") and runs(shop, "long"))
    waiting = shop.send("late", "waiting", 0)
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(60)
    assert "Initiating Soft Shutdown" in worker.log.read_text()
    assert short.get(timeout=1) == "short"
    bridge_worker(shop, concurrency=2)
    until(lambda: runs(shop, "long") == 2)
    shop.go()
    assert long.get(timeout=60) == "long"
    assert waiting.get(timeout=60) == "waiting"
    assert (runs(shop, "short"), runs(shop, "waiting")) == (1, 1)


def test_a_dispatcher_that_is_killed_comes_back(project: Make, bridge_worker: Start) -> None:
    shop = project()
    worker = bridge_worker(shop, concurrency=2)
    running = [shop.send("late", "lost", 60), shop.send("late", "lost", 60)]
    until(lambda: runs(shop, "lost") == 2)
    behind = [shop.send("late", f"behind{i}") for i in range(30)]
    client = raycelery.Celery(shop.module, set_as_current=False).client
    os.kill(client.call(questions.Stats())["pid"], signal.SIGKILL)
    for result in running:
        with pytest.raises(WorkerLostError, match="dispatcher"):
            result.get(timeout=90)
    assert [result.get(timeout=90) for result in behind] == [f"behind{i}" for i in range(30)]
    assert sum(runs(shop, f"behind{i}") for i in range(30)) == 30
    assert shop.send("add", 1, 1).get(timeout=60) == 2
    assert worker.process.poll() is None


def test_new_code_is_run_after_a_restart_of_the_worker_or_of_its_pool(project: Make, bridge_worker: Start) -> None:
    shop = project(more=MORE, worker_pool_restarts=True)
    path = shop.directory / f"{shop.module}.py"

    def deploy(version: int) -> None:
        path.write_text(path.read_text().replace(f"return {version - 1}", f"return {version}"))
        # Two versions of one second and one size are the same to Python's cache.
        os.utime(path, (version, version))

    worker = bridge_worker(shop)
    assert shop.send("version").get(timeout=60) == 1
    deploy(2)
    # A second worker joins, as in a rolling deployment.
    bridge_worker(shop)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(60)
    assert shop.send("version").get(timeout=60) == 2
    deploy(3)
    replies = shop.app.control.pool_restart(reply=True, timeout=20, limit=1)
    assert [list(reply.values()) for reply in replies] == [[{"ok": "reload started"}]]
    assert shop.send("version").get(timeout=60) == 3


def test_a_worker_of_a_release_in_a_folder_of_its_own_runs_that(project: Make, bridge_worker: Start) -> None:
    old = project(more=MORE)
    new = dataclasses.replace(old, directory=old.directory / "v2")
    new.directory.mkdir()
    source = old.directory / f"{old.module}.py"
    (new.directory / source.name).write_text(source.read_text().replace("return 1", "return 2"))
    # As the `celery` command, which looks into its working directory for a moment only.
    env = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    worker = bridge_worker(old, env=env)
    assert old.send("version").get(timeout=60) == 1
    assert stop(worker.process) == 0
    source.unlink()
    bridge_worker(new, env=env)
    assert [new.send("version").get(timeout=60) for _ in range(3)] == [2] * 3


SET_UP = """
from celery import bootsteps, signals
DONE = []

@signals.celeryd_init.connect
def init(**_):
    DONE.append("celeryd_init")

class Step(bootsteps.StartStopStep):
    def __init__(self, worker, **options):
        DONE.append("Step.__init__")
    def start(self, worker):
        print("Step.start", flush=True)

app.steps["worker"].add(Step)

@signals.celeryd_init.connect(sender="nights@example.com")
def nights(**_): DONE.append("nights")

@app.task
def done():
    return DONE
"""


def test_set_up_before_forking_reaches_executors(project: Make, bridge_worker: Start) -> None:
    shop = project(more=SET_UP)
    worker = bridge_worker(shop)
    assert shop.send("done").get(timeout=60) == ["celeryd_init", "Step.__init__"]
    log = worker.log.read_text()
    assert "Step.start" in log
    assert "do not run in executors, which have none: nights of celeryd_init" in log
    assert "no worker process" not in log


def test_workers_of_one_project_share_its_executors(project: Make, bridge_worker: Start) -> None:
    shop = project(include=["colorsys", "netrc", "sched", "stringprep", "this"])
    # Whatever order sets have in their processes, and wherever they log to.
    for seed in "12":
        log = shop.directory / f"{seed}.log"
        bridge_worker(shop, "-Q", seed, "-f", str(log), concurrency=1, env={"PYTHONHASHSEED": seed})
    for seed in "12":
        assert shop.send("add", 1, 2, queue=seed).get(timeout=60) == 3
    overview = raycelery.Celery(shop.module, set_as_current=False).client.call(questions.Overview())
    assert len([lane for lane in overview["lanes"] if not lane["bookkeeping"]]) == 1


def test_a_worker_without_an_event_loop(project: Make, bridge_worker: Start, redis_url: str) -> None:
    # As over brokers whose transport has none, such as SQS.
    shop = project()
    source = shop.directory / f"{shop.module}.py"
    source.write_text(
        source.read_text()
        + "\nfrom kombu.transport import redis\n"
        + "redis.Transport.implements = redis.Transport.implements.extend(asynchronous=False)\n"
    )
    worker = bridge_worker(shop, concurrency=2)
    results = [shop.send("add", i, 1) for i in range(100)]
    assert [result.get(timeout=60) for result in results] == list(range(1, 101))
    client = redis.Redis.from_url(redis_url)
    until(lambda: not client.hlen("unacked"))
    running = shop.send("late", "run", 60)
    until(lambda: runs(shop, "run"))
    shop.app.control.revoke(running.id, terminate=True)
    with pytest.raises(celery.exceptions.TaskRevokedError):
        running.get(timeout=60)
    last = shop.send("late", "last", 60)
    until(lambda: runs(shop, "last"))
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    shop.go()
    assert last.get(timeout=60) == "last"
    assert worker.process.wait(60) == 0
