"""Celery's events: what a receiver sees of tasks and nodes, and that nothing is sent while there is none."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.events.state import State
from celery.exceptions import TaskRevokedError

from raycelery.protocol import bus_questions
from tests import records
from tests.control import shop
from tests.control.processes import APP, running
from tests.support import RaySession, until

SECONDS = 60
NODE = f"celery@{socket.gethostname()}"
pytestmark = pytest.mark.usefixtures("ray_session")
control = shop.app.control


class Seen:
    """A receiver's events."""

    def __init__(self) -> None:
        self.state = State()
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.state.event(dict(event))

    def kinds(self, task_id: str) -> list[str]:
        """Events of a task, in order of their clocks."""
        events = [event for event in self.events if event.get("uuid") == task_id]
        return [event["type"].removeprefix("task-") for event in sorted(events, key=lambda event: event["clock"])]

    def until(self, task_id: str, kind: str, count: int = 1) -> list[str]:
        until(lambda: self.kinds(task_id).count(kind) >= count, say=lambda: str(self.kinds(task_id)))
        return self.kinds(task_id)


@contextlib.contextmanager
def receiving() -> Iterator[Seen]:
    """Capture events as Celery's own tools do, in another thread."""
    seen = Seen()
    with shop.app.connection() as connection:
        receiver = shop.app.events.Receiver(connection, handlers={"*": seen})

        thread = threading.Thread(target=receiver.capture)
        thread.start()
        try:
            until(lambda: any(event["type"] == "worker-heartbeat" for event in seen.events))
            yield seen
        finally:
            receiver.should_stop = True
            thread.join()


@contextlib.contextmanager
def shop_of_one() -> Iterator[None]:
    """Let one task of the application run at once."""
    control.pool_shrink(3)
    try:
        yield
    finally:
        control.pool_grow(3)


def listeners() -> int:
    return len(shop.app.client.call(bus_questions.Bindings("celeryev")))


def test_the_life_of_a_task_is_seen(tmp_path: Path) -> None:
    with receiving() as seen:
        good = shop.add.delay(1, 2)
        assert good.get(timeout=SECONDS) == 3
        assert seen.until(good.id, "succeeded") == ["received", "started", "succeeded"]
        task = seen.state.tasks[good.id]
        assert (task.name, task.args, task.kwargs, task.result) == ("shop.add", "(1, 2)", "{}", "3")
        assert task.worker.hostname == NODE
        assert task.received <= task.started <= task.succeeded
        assert 0 < task.runtime < SECONDS

        bad = shop.fail.delay(7)
        assert seen.until(bad.id, "failed") == ["received", "started", "failed"]
        assert seen.state.tasks[bad.id].exception == "ValueError('code 7')"
        assert "code {code}" in seen.state.tasks[bad.id].traceback

        again = shop.again.delay()
        kinds = seen.until(again.id, "succeeded")
        # A retry is published before its task has ended, as in Celery.
        assert sorted(kinds) == ["received", "received", "retried", "started", "started", "succeeded"]
        # Later versions of Celery also say that it has failed.
        kinds = seen.until(shop.refuse.delay().id, "rejected")
        assert [kind for kind in kinds if kind != "failed"] == ["received", "started", "rejected"]

        never = shop.add.apply_async((1, 2), countdown=3600)
        never.revoke()
        assert seen.until(never.id, "revoked") == ["received", "revoked"]
        ended = shop.hold.delay(str(tmp_path / "ended"))
        records.wait_for_file(str(tmp_path / "ended"))
        ended.revoke(terminate=True)
        assert seen.until(ended.id, "revoked") == ["received", "started", "revoked"]
        assert seen.state.tasks[ended.id].worker.alive
        slow = shop.hold.apply_async((str(tmp_path / "slow"),), time_limit=0.3)
        assert seen.until(slow.id, "failed") == ["received", "started", "failed"]
        unknown = shop.app.send_task("shop.none")
        assert seen.until(unknown.id, "failed") == ["received", "failed"]
        with pytest.raises(TaskRevokedError):
            ended.get(timeout=SECONDS)


def test_nodes_tell_that_they_are_there() -> None:
    with receiving() as seen:
        assert seen.state.workers[NODE].alive
        [beat] = [event for event in seen.events if event["type"] == "worker-heartbeat"][:1]
        assert beat["sw_ident"] == "py-celery"
        assert len(beat["loadavg"]) == 3
        assert beat["active"] == 0


def test_producers_say_what_they_send_where_the_project_wants_that() -> None:
    shop.app.conf.task_send_sent_event = True
    try:
        with receiving() as seen:
            result = shop.add.delay(1, 2)
            seen.until(result.id, "succeeded")
            [sent] = [event for event in seen.events if event["type"] == "task-sent"]
            assert (sent["uuid"], sent["queue"], sent["name"]) == (result.id, "celery", "shop.add")
    finally:
        shop.app.conf.task_send_sent_event = False
        shop.app.producer.descriptions.forget()


def test_tasks_and_programs_send_events_of_their_own() -> None:
    assert shop.progress.delay(3).get(timeout=SECONDS) == 3, "whether or not somebody listens"
    with receiving() as seen:
        result = shop.progress.delay(5)
        assert result.get(timeout=SECONDS) == 5
        seen.until(result.id, "progress")
        seen.until(result.id, "forecast-ready")
        with shop.app.events.default_dispatcher(hostname="elsewhere") as dispatcher:
            dispatcher.send("forecast-late", zone="JFK")
            dispatcher.publish("forecast-lost", {"zone": "LGA"}, shop.app.producer)
        mine = ("forecast-ready", "forecast-late", "forecast-lost")
        until(lambda: sum(event["type"] in mine for event in seen.events) == 3)
        found = {event["type"]: event for event in seen.events}
    assert found["task-progress"]["done"] == 5
    assert {found[kind]["zone"] for kind in mine} == {"EWR", "JFK", "LGA"}
    assert found["forecast-late"]["hostname"] == "elsewhere"


def test_events_of_ones_own_kind_are_routed_by_it() -> None:
    seen = Seen()
    with shop.app.connection() as connection:
        receiver = shop.app.events.Receiver(connection, handlers={"*": seen}, routing_key="forecast.#")
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": 1, "timeout": SECONDS})
        thread.start()
        exchange = shop.app.conf.event_exchange
        until(lambda: shop.app.client.call(bus_questions.Bindings(exchange)))
        shop.progress.delay(7).get(timeout=SECONDS)
        thread.join(SECONDS)
    assert [event["type"] for event in seen.events] == ["forecast-ready"]


def test_task_events_can_be_disabled() -> None:
    with receiving() as seen:
        assert control.disable_events(reply=True) == [{NODE: {"ok": "task events disabled"}}]
        try:
            quiet = shop.add.delay(1, 2)
            assert quiet.get(timeout=SECONDS) == 3
        finally:
            assert control.enable_events(reply=True) == [{NODE: {"ok": "task events enabled"}}]
        loud = shop.add.delay(1, 2)
        seen.until(loud.id, "succeeded")
        assert seen.kinds(quiet.id) == []


def test_many_events_all_come_in_order() -> None:
    with receiving() as seen:
        results = [shop.add.delay(i, i) for i in range(2000)]
        assert results[-1].get(timeout=SECONDS) == 2 * 1999
        until(lambda: sum(event["type"] == "task-succeeded" for event in seen.events) == 2000)
        assert {tuple(seen.kinds(result.id)) for result in results[::200]} == {("received", "started", "succeeded")}


def test_what_was_submitted_before_somebody_listened_is_known_to_them(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("running", "waiting", "revoked")]
    with shop_of_one():
        running = shop.hold.delay(paths[0])
        records.wait_for_file(paths[0])
        waiting, revoked = shop.add.delay(3, 4), shop.hold.delay(paths[2])
        with receiving() as first:
            assert first.until(running.id, "started") == ["received", "started"]
            assert first.state.tasks[running.id].name == "shop.hold"
            with receiving() as second:
                second.until(running.id, "started")
                revoked.revoke()
                Path(f"{paths[0]}.go").touch()
                for seen in (first, second):
                    assert seen.until(waiting.id, "succeeded") == ["received", "started", "succeeded"]
                    seen.until(running.id, "succeeded")
                    assert seen.until(revoked.id, "revoked") == ["received", "revoked"]
                    for result, name in ((running, "shop.hold"), (waiting, "shop.add"), (revoked, "shop.hold")):
                        task = seen.state.tasks[result.id]
                        assert (task.name, task.args.startswith("(")) == (name, True)
                        assert task.received <= task.timestamp
                    assert seen.state.tasks[running.id].runtime > 0


def test_a_listener_that_is_gone_costs_nothing(ray_session: RaySession, tmp_path: Path) -> None:
    assert shop.add.delay(1, 2).get(timeout=SECONDS) == 3
    until(lambda: listeners() == 0)
    with running(ray_session, tmp_path, "celery", "-A", APP, "events", "--dump") as output:
        until(lambda: "heartbeat" in output.read_text(), say=output.read_text)
        assert listeners() == 1
        result = shop.add.delay(5, 6)
        until(lambda: result.id in output.read_text() and "succeeded" in output.read_text(), say=output.read_text)
        assert "task received: shop.add" in output.read_text()
    until(lambda: listeners() == 0)
    began = time.monotonic()
    assert shop.add.delay(1, 2).get(timeout=SECONDS) == 3
    assert time.monotonic() - began < SECONDS
