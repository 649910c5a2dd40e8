"""What waits on Ray goes back to the broker, once, and runs on workers again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import redis

from raycelery import Celery
from raycelery.protocol import questions
from tests.support import until
from tests.switch.support import Project

Make = Callable[..., Project]

#: What the project's producers do while it is on Ray: what is due later waits there, and so does a queue that is held.
CALLS = """
import sys
from {module} import app, quiet, total, work
from celery import chord
app.control.cancel_consumer("{queue}", reply=True)
ids = [work.apply_async((f"n{{i}}",), countdown=3600, priority=i % 2).id for i in range(70)]
ids.append(work.apply_async(("headed",), priority=3, headers={{"x-who": "anna"}}, retries=2).id)
(work.si("first") | quiet.si("second")).apply_async()
work.apply_async(("odd", {{1, 2}}), countdown=3600)
chord([work.si("part").set(countdown=3600)], total.s())()
app.client.hand_over(60)
print(*ids)
"""


def test_what_waits_on_ray_runs_on_workers_again(project: Make) -> None:
    _back_and_run(project(), "celery")


def test_the_same_on_rabbitmq(project: Make, rabbitmq_url: str) -> None:
    _back_and_run(project(broker=rabbitmq_url, task_default_queue="back"), "back")


def _back_and_run(shop: Project, queue: str) -> None:
    (shop.directory / "calls.py").write_text(CALLS.format(module=shop.module, queue=queue))
    status, out, err = shop.call("calls")
    assert status == 0, err
    ids = out.split()
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--to-broker", "--until-empty")
    assert status == 1, out + err
    assert "sent to the broker: 72" in out, out + err
    assert "part of a chord that was begun on Ray" in out
    assert "nothing that json can encode" in out
    assert "waiting on Ray: 2" in out
    process = shop.start("celery", "-A", shop.module, "worker", "-P", "solo", "-l", "WARNING", old=True)
    try:
        found = until(lambda: _scheduled(shop), 90)
        until(lambda: len(shop.notes("old")) == 3, 60)
    finally:
        process.kill()
        process.communicate()
    assert [one["request"] for one in found if one["request"]["id"] not in ids[:70]] == []
    assert len({one["request"]["id"] for one in found}) == 70
    notes = {line[0]: line[1:] for line in shop.notes("old")}
    assert set(notes) == {"headed", "first", "second"}
    assert notes["headed"] == [ids[70], "2", "3", "anna"]
    assert not shop.notes(), "nothing has run on Ray"


def _scheduled(shop: Project) -> list[Any] | None:
    answers = shop.old.control.inspect(timeout=1).scheduled() or {}
    found = [one for answer in answers.values() for one in answer]
    return found if len(found) == 70 else None


def test_neither_a_drain_nor_a_dispatcher_that_is_killed_loses_or_doubles_anything(
    project: Make, redis_url: str
) -> None:
    shop = project()
    app = Celery(shop.module, set_as_current=False)
    ids = {app.send_task(f"{shop.module}.work", (f"n{i}",), countdown=3600).id for i in range(600)}
    app.client.hand_over(60)
    with redis.Redis.from_url(redis_url) as client:
        for count in (1, 250):
            process = shop.start("raycelery", "drain", "-A", shop.module, "--to-broker")
            try:
                until(lambda count=count: client.llen("celery") >= count, 60)
            finally:
                process.kill()
                process.communicate()
            os.kill(app.client.call(questions.Stats())["pid"], signal.SIGKILL)
        status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--to-broker", "--until-empty")
        assert (status, out.splitlines()[-1]) == (0, "nothing waits on Ray"), out + err
        assert client.llen("celery") == 600
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert "moved to Ray: 600" in out, out + err
    assert app.client.call(questions.Unknown(list(ids))) == []
