"""``app.control.inspect()``, and the commands that change something, as Celery's tools send them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from raycelery.errors import RayCeleryError
from raycelery.protocol import questions
from tests import records
from tests.control import shop
from tests.support import RaySession, stop, until

SECONDS = 60
NODE = f"celery@{socket.gethostname()}"
control = shop.app.control


@pytest.fixture(autouse=True)
def _ray(ray_session: RaySession) -> None:
    shop.add.delay(0, 0).get(timeout=SECONDS)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Any]:
    """A task that runs until the test's end."""
    path = str(tmp_path / "held")
    result = shop.hold.delay(path)
    records.wait_for_file(path)
    yield result
    Path(f"{path}.go").touch()
    result.get(timeout=SECONDS, propagate=False)


def only(answers: dict[str, Any] | None) -> Any:
    """The answer of the one node there is."""
    assert answers is not None
    assert list(answers) == [NODE]
    return answers[NODE]


def test_every_node_answers_and_nobody_waits_for_more() -> None:
    inspect = control.inspect(timeout=30)
    began = time.monotonic()
    assert only(inspect.ping()) == {"ok": "pong"}
    assert only(inspect.clock())["clock"] > 0
    assert time.monotonic() - began < 30, "it does not wait for the time to be over"
    assert control.inspect([NODE]).ping() == {NODE: {"ok": "pong"}}
    assert control.ping(destination=[NODE], timeout=30) == [{NODE: {"ok": "pong"}}]


def test_destinations_and_patterns_are_looked_at() -> None:
    assert control.inspect(["celery@elsewhere"], timeout=0.2).ping() is None
    assert control.inspect(pattern="celery@*", matcher="glob", timeout=0.5).ping() == {NODE: {"ok": "pong"}}
    assert control.inspect(pattern="w*", matcher="glob", timeout=0.2).ping() is None


def test_what_runs_and_what_waits_for_its_time(held: Any) -> None:
    inspect = control.inspect()
    [active] = only(inspect.active())
    assert active["id"] == held.id
    assert active["name"] == "shop.hold"
    assert active["args"][0].endswith("held")
    assert active["hostname"] == NODE
    assert active["worker_pid"] != os.getpid()
    eta = datetime.now(timezone.utc) + timedelta(hours=1)
    later = shop.add.apply_async((1, {"a": 2}), eta=eta)
    [scheduled] = only(inspect.scheduled())
    assert scheduled["request"]["id"] == later.id
    assert scheduled["request"]["args"] == [1, {"a": 2}]
    assert datetime.fromisoformat(scheduled["eta"]) == eta
    found = only(inspect.query_task([held.id, later.id, "none"]))
    assert {task_id: place for task_id, (place, _) in found.items()} == {held.id: "active", later.id: "scheduled"}
    later.revoke()
    assert later.id in only(inspect.revoked())
    with pytest.raises(TaskRevokedError):
        later.get(timeout=SECONDS)


def test_arguments_that_are_no_plain_data_are_shown_by_their_representation() -> None:
    later = shop.add.apply_async((Path("x"), 2), countdown=3600)
    [scheduled] = only(control.inspect().scheduled())
    assert scheduled["request"]["args"] == "(PosixPath('x'), 2)"
    later.revoke()


def test_what_only_the_application_knows() -> None:
    inspect = control.inspect()
    assert "shop.add" in only(inspect.registered())
    assert "shop.add [name=shop.add]" in only(inspect.registered("name"))
    assert only(inspect.conf())["ray_idle_seconds"] == 5.0
    assert "software -> celery" in only(inspect.report())["ok"]
    assert "celery" in [queue["name"] for queue in only(inspect.active_queues())]


def test_stats(held: Any) -> None:
    stats = only(control.inspect().stats())
    assert stats["total"]["shop.add"] >= 1
    assert stats["pool"]["max-concurrency"] == 4
    assert stats["pool"]["processes"]
    assert stats["uptime"] > 0


def test_a_command_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(RayCeleryError, match=r"'mine' in direct mode; known: .*rate_limit"):
        control.broadcast("mine")


def test_revoke_and_terminate_answer_as_workers_do(held: Any) -> None:
    waiting = shop.add.apply_async((1, 2), countdown=3600)
    assert control.revoke(waiting.id, reply=True) == [{NODE: {"ok": f"tasks {{'{waiting.id}'}} flagged as revoked"}}]
    assert control.terminate(held.id, reply=True) == [{NODE: {"ok": f"terminate: {held.id}"}}]
    for result in (waiting, held):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=SECONDS)
    assert control.terminate("none", reply=True) == [{NODE: {"ok": "terminate: tasks unknown"}}]


def test_a_connection_takes_a_timeout_of_zero() -> None:
    with shop.app.connection_for_read(connect_timeout=0) as connection:
        assert connection.connect_timeout == 0
    with shop.app.connection_for_read() as connection:
        assert connection.connect_timeout == shop.app.conf.broker_connection_timeout


def test_limits_of_rate_say_what_is_wrong() -> None:
    assert control.rate_limit("shop.none", "1/s", reply=True) == [{NODE: {"error": "unknown task"}}]
    [answer] = control.rate_limit("shop.add", "often", reply=True)
    assert "Invalid rate limit string" in answer[NODE]["error"]
    assert control.rate_limit("shop.add", "100/s", reply=True) == [{NODE: {"ok": "new rate limit set successfully"}}]
    assert control.rate_limit("shop.add", 0, reply=True) == [{NODE: {"ok": "rate limit disabled successfully"}}]


def test_time_limits_hold_for_calls_that_bring_none(tmp_path: Path) -> None:
    assert control.time_limit("shop.hold", soft=0.2, reply=True) == [{NODE: {"ok": "time limits set successfully"}}]
    with pytest.raises(SoftTimeLimitExceeded):
        shop.hold.delay(str(tmp_path / "soft")).get(timeout=SECONDS)
    control.time_limit("shop.hold", hard=0.5)
    with pytest.raises(TimeLimitExceeded):
        shop.hold.delay(str(tmp_path / "hard")).get(timeout=SECONDS)
    own = shop.hold.apply_async((str(tmp_path / "own"), 1.0), time_limit=50)
    assert own.get(timeout=SECONDS) == "held"
    control.time_limit("shop.hold")
    assert shop.hold.delay(str(tmp_path / "none"), 0.8).get(timeout=SECONDS) == "held"


def test_a_cancelled_queue_waits_until_it_is_added_again() -> None:
    # Many processes define a queue's limit anew as they come; the operator's word counts more.
    assert control.cancel_consumer("nights", reply=True) == [{NODE: {"ok": "no longer consuming from nights"}}]
    waiting = shop.add.apply_async((1, 2), queue="nights")
    shop.add.delay(0, 0).get(timeout=SECONDS)
    assert waiting.state == "PENDING"
    assert "queue 'nights' to be let run" in shop.app.client.call(questions.Why(waiting.id))
    assert control.add_consumer("nights", reply=True) == [{NODE: {"ok": "add consumer nights"}}]
    assert waiting.get(timeout=SECONDS) == 3


def test_the_pool_shrinks_and_grows(tmp_path: Path) -> None:
    assert "error" in control.pool_grow(1, reply=True)[0][NODE]
    assert "1 messages at once" in control.pool_shrink(3, reply=True)[0][NODE]["ok"]
    assert only(control.inspect().stats())["pool"]["max-concurrency"] == 1
    paths = [str(tmp_path / f"{i}") for i in range(2)]
    results = [shop.hold.delay(path) for path in paths]
    records.wait_for_file(paths[0])
    assert "the max_concurrency of the application" in shop.app.client.call(questions.Why(results[1].id))
    assert "4 messages at once" in control.pool_grow(3, reply=True)[0][NODE]["ok"]
    records.wait_for_file(paths[1])
    for path in paths:
        Path(f"{path}.go").touch()
    assert [result.get(timeout=SECONDS) for result in results] == ["held", "held"]
    assert shop.app.client.call(questions.Overview())["limits"].get("app") is None


def test_shutdown_ends_executors_after_what_they_run(held: Any, tmp_path: Path) -> None:
    before = only(control.inspect().stats())["pool"]["processes"]
    assert "executors end" in control.broadcast("shutdown", reply=True)[0][NODE]["ok"]
    assert shop.pid.delay().get(timeout=SECONDS) not in before
    (tmp_path / "held.go").touch()
    assert held.get(timeout=SECONDS) == "held", "it was let to its end"
    until(lambda: not set(before) & set(only(control.inspect().stats())["pool"]["processes"]))


def test_a_second_node_is_a_second_worker(ray_session: RaySession) -> None:
    line = ["start", f"--address={ray_session.address}", "--num-cpus=1", '--resources={"far": 1}', "--block"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: len(control.ping(timeout=5)) == 2)
        [other] = [name for answer in control.ping(timeout=5) for name in answer if name != NODE]
        assert other.startswith(f"{NODE}-"), "two nodes of one host are told apart"
        result = shop.pid.apply_async(resources={"far": 1})
        pid = result.get(timeout=SECONDS)
        stats = control.inspect().stats()
        assert stats is not None
        assert stats[other]["pool"]["processes"] == [pid]
        assert stats[other]["total"] == {"shop.pid": 1}
        assert pid not in stats[NODE]["pool"]["processes"]
    finally:
        stop(process)
    until(lambda: len(control.ping(timeout=5)) == 1)
