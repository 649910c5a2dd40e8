"""Flower, as it comes from PyPI, on an application in direct mode: what it shows, and what its HTTP API can do."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from raycelery.protocol import questions
from tests.control import shop
from tests.control.processes import APP, running
from tests.support import RaySession, free_port, until

pytest.importorskip("flower", reason="flower is not installed: pip install flower")
SECONDS = 60
NODE = f"celery@{socket.gethostname()}"


class Flower:
    """Its HTTP API."""

    #: A task that was there before it.
    early: Any = None

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:
            text = answer.read().decode()
        return json.loads(text) if path.startswith("/api") or "json" in path else text

    def post(self, path: str, **fields: Any) -> str:
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(self._url + path, data=data, timeout=30) as answer:
            return str(json.loads(answer.read())["message"])

    def up(self) -> bool:
        try:
            # It listens to events once it knows a worker from them.
            return bool(self.get("/workers?json=1")["data"])
        except (urllib.error.URLError, ConnectionError):
            return False

    def task(self, task_id: str, state: str) -> dict[str, Any]:
        def reached() -> Any:
            found = self.get("/api/tasks").get(task_id, {})
            return found if found.get("state") == state else None

        found: dict[str, Any] = until(reached, say=lambda: str(self.get("/api/tasks").get(task_id)))
        return found


@pytest.fixture
def flower(ray_session: RaySession, tmp_path: Path) -> Iterator[Flower]:
    shop.add.delay(0, 0).get(timeout=SECONDS)
    shop.app.control.cancel_consumer("early")
    early = shop.add.apply_async((20, 22), queue="early")
    port = free_port()
    line = ("celery", "-A", APP, "flower", "--address=127.0.0.1", f"--port={port}")
    with running(ray_session, tmp_path, *line, env={"FLOWER_UNAUTHENTICATED_API": "true"}) as output:
        found = Flower(port)
        found.early = early
        until(found.up, say=output.read_text)
        yield found


def test_flower_shows_workers_and_tasks_and_steers_them(flower: Flower, tmp_path: Path) -> None:
    shop.app.control.add_consumer("early")
    task = flower.task(flower.early.id, "SUCCESS")
    assert (task["name"], task["args"], task["result"]) == ("shop.add", "(20, 22)", "42")
    assert task["received"] <= task["started"]

    good = shop.add.delay(1, 2)
    task = flower.task(good.id, "SUCCESS")
    assert (task["name"], task["args"], task["kwargs"], task["result"]) == ("shop.add", "(1, 2)", "{}", "3")
    assert task["worker"] == NODE
    assert task["received"] <= task["started"], "from which one sees how long it waited"
    assert task["runtime"] > 0
    bad = shop.fail.delay(7)
    assert "code 7" in flower.task(bad.id, "FAILURE")["exception"]

    path = str(tmp_path / "held")
    held = shop.hold.delay(path)
    assert flower.task(held.id, "STARTED")["runtime"] is None
    until(lambda: flower.get("/workers?json=1")["data"][0]["active"] == 1)
    [worker] = flower.get("/workers?json=1")["data"]
    assert (worker["hostname"], worker["status"], worker["task-failed"]) == (NODE, True, 1)
    assert len(worker["loadavg"]) == 3

    waiting = shop.add.apply_async((1, 2), countdown=3600)
    flower.task(waiting.id, "RECEIVED")
    assert "Revoked" in flower.post(f"/api/task/revoke/{waiting.id}")
    flower.task(waiting.id, "REVOKED")
    assert "Revoked" in flower.post(f"/api/task/revoke/{held.id}", terminate="true")
    flower.task(held.id, "REVOKED")
    with pytest.raises(TaskRevokedError):
        held.get(timeout=SECONDS)

    answer = flower.post("/api/task/rate-limit/shop.add", workername=NODE, ratelimit="50/s")
    assert answer == "new rate limit set successfully"
    assert shop.app.client.call(questions.Overview())["rates"]["shop.add"] == 50
    flower.post("/api/task/rate-limit/shop.add", workername=NODE, ratelimit="0")
    answer = flower.post("/api/task/timeout/shop.hold", workername=NODE, hard=100)
    assert answer == "time limits set successfully"
    shop.app.control.time_limit("shop.hold")
    assert "Shrinking" in flower.post(f"/api/worker/pool/shrink/{NODE}", n=1)
    assert "Growing" in flower.post(f"/api/worker/pool/grow/{NODE}", n=1)
    assert flower.post(f"/api/worker/queue/cancel-consumer/{NODE}", queue="x") == "no longer consuming from x"
    assert flower.post(f"/api/worker/queue/add-consumer/{NODE}", queue="x") == "add consumer x"

    details = flower.get("/api/workers?refresh=1")[NODE]
    assert details["stats"]["total"]["shop.add"] >= 2
    assert "shop.add" in "".join(details["registered"])
    assert "celery" in [queue["name"] for queue in details["active_queues"]]
    for page in ("/workers", "/tasks", f"/worker/{NODE}", f"/task/{good.id}"):
        assert "Flower" in flower.get(page)
