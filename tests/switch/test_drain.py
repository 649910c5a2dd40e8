"""What a broker still holds goes over to Ray, once, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import celery
import pytest
from kombu.transport import native_delayed_delivery as delayed

from tests.support import until
from tests.switch.support import Project

Make = Callable[..., Project]


def test_what_waits_in_redis_runs_on_ray_as_it_was_sent(project: Make) -> None:
    shop = project()
    sent = [shop.send("work", f"n{i}") for i in range(120)]
    headed = shop.send("work", "headed", priority=6, headers={"x-who": "anna"}, retries=2)
    quiet = shop.send("quiet", "quiet")
    later = shop.send("work", "later", countdown=3600)
    soon = shop.send("work", "soon", eta=datetime.now(timezone.utc) + timedelta(seconds=1))
    expired = shop.send("work", "expired", expires=datetime.now(timezone.utc) - timedelta(seconds=5))
    work, total = (shop.old.signature(f"{shop.module}.{name}") for name in ("work", "total"))
    chord = celery.chord([work.clone(["a"]), work.clone(["bb"])], total, app=shop.old)()
    old = celery.Celery(shop.module, broker=shop.old.conf.broker_url, set_as_current=False)
    old.conf.task_protocol = 1
    first = old.send_task(f"{shop.module}.work", ("protocol1",))
    other = shop.send("nobody_knows", 1)

    status, out, err = shop.call("raycelery", "switch", "status", "-A", shop.module, "--json")
    assert (status, json.loads(out)["left"][0]["ready"]) == (1, 129), err
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert status == 1, out + err
    assert "moved to Ray: 128" in out
    assert f"stay in the broker: 1, as the application has no task '{shop.module}.nobody_knows'" in out
    assert "left in the broker: 1" in out

    until(lambda: shop.runs()["total"] and shop.runs()["soon"] and shop.runs()["protocol1"], 30, shop.runs)
    until(lambda: shop.runs()["headed"] and shop.runs()["quiet"])
    notes = {line[0]: line[1:] for line in shop.notes()}
    assert {name for name, count in shop.runs().items() if count != 1} == set()
    assert len(shop.runs()) == 120 + 7, "all but what is later, expired or unknown"
    assert [notes[f"n{i}"][0] for i in range(120)] == [result.id for result in sent]
    assert notes["headed"] == [headed.id, "2", "6", "anna"]
    assert notes["quiet"][0] == quiet.id
    assert notes["protocol1"][0] == first.id
    assert notes["total"] == ["3"]
    assert "later" not in notes
    assert "expired" not in notes
    code = (
        f"from {shop.module} import app; import sys;"
        "print([(app.AsyncResult(one).get(timeout=60) if i < 2 else app.AsyncResult(one).state)"
        " for i, one in enumerate(sys.argv[1:])])"
    )
    ids = [chord.id, soon.id, later.id, expired.id, other.id]
    (shop.directory / "read.py").write_text(code)
    assert shop.call("read", *ids)[1].strip() == "[3, 'soon', 'PENDING', 'REVOKED', 'PENDING']"
    # It is there for a worker that knows it, and a second drain finds nothing else.
    status, out, _ = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert "moved to Ray: 0" in out


def test_what_a_stopped_worker_had_taken_is_taken_and_what_a_live_one_has_is_not(project: Make) -> None:
    shop = project()
    later = [shop.send("work", f"later{i}", countdown=7200) for i in range(3)]
    process = shop.start("celery", "-A", shop.module, "worker", "-P", "solo", "-l", "WARNING", old=True)
    try:
        client = shop.old.connection().channel().client
        until(lambda: client.hlen("unacked") == 3 and client.llen("celery") == 0, 60)
        status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
        assert status == 1, out + err
        assert "left alone: 3 that workers have taken" in out
    finally:
        process.kill()
        process.communicate()
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert (status, out.splitlines()[-1]) == (0, "the broker is empty"), out + err
    assert "of workers that are gone: 3" in out
    for one in later:
        _, out, err = shop.call("raycelery", "status", "-A", shop.module, "--why", one.id)
        assert "It is scheduled for" in out, out + err
    assert not shop.notes()


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_a_drain_that_is_killed_again_and_again_loses_and_doubles_nothing(
    project: Make, broker: str, request: pytest.FixtureRequest
) -> None:
    shop = project(broker=request.getfixturevalue(broker), task_ignore_result=True, task_default_queue="killed")
    number = 1500
    with shop.old.producer_pool.acquire() as producer:
        for i in range(number):
            shop.send("quiet", f"n{i}", producer=producer)
    for count in (1, 400, 900):
        process = shop.start("raycelery", "drain", "-A", shop.module)
        try:
            until(lambda count=count: len(shop.notes()) >= count, 60, lambda: shop.notes()[-1:])
        finally:
            process.kill()
            process.communicate()
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert status == 0, out + err
    until(lambda: len(shop.runs()) == number, 60, lambda: len(shop.runs()))
    assert shop.runs().total() == number


def test_only_what_the_application_accepts_is_decoded_and_a_key_prefix_is_honoured(project: Make) -> None:
    shop = project(broker_transport_options={"global_keyprefix": "shop:", "priority_steps": [0, 3, 6, 9]})
    trap = shop.directory / "unpickled"
    for serializer in ("pickle", "json"):
        argument: Any = _Trap(str(trap)) if serializer == "pickle" else "plain"
        shop.send("work", serializer, argument, serializer=serializer, priority=9)
    with shop.old.connection() as connection:
        connection.default_channel.client.lpush("celery", b"no message")
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert status == 1, out + err
    assert "moved to Ray: 1" in out
    assert "stay in the broker: 1, as it is no message of Celery's: it is in the list shop:celery.unreadable now" in out
    assert "left in the broker: 2" in out
    assert "stay in the broker: 1, as accept_content does not allow application/x-python-serialize" in out
    until(lambda: shop.runs()["json"], 60)
    assert not trap.exists()
    for command in (("raycelery", "switch", "status", "-A"), ("raycelery.migrate", "check", "old", "--live")):
        status, out, err = shop.call(*command, shop.module)
        assert status == 1, err
        assert "Left in the broker" in out


class _Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_rabbitmq_with_quorum_queues_and_delayed_delivery(project: Make, rabbitmq_url: str) -> None:
    quorum = {
        "task_default_queue": "orders",
        "task_default_queue_type": "quorum",
        "task_default_exchange": "orders",
        "task_default_exchange_type": "topic",
        "worker_detect_quorum_queues": True,
        "broker_transport_options": {"confirm_publish": True},
    }
    shop = project(broker=rabbitmq_url, **quorum)
    with shop.old.connection() as connection:
        delayed.declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
        queue = shop.old.amqp.queues["orders"]
        queue.bind(connection.channel()).declare()
        delayed.bind_queue_to_native_delayed_delivery_exchange(connection, queue)
    sent = [shop.send("work", f"n{i}", priority=i % 3) for i in range(60)]
    later, soon = shop.send("work", "later", countdown=3600), shop.send("work", "soon", countdown=3)
    shop.send("nobody_knows")
    status, out, err = shop.call("raycelery", "switch", "status", "-A", shop.module, "--json")
    left = {one["queue"]: one for one in json.loads(out)["left"]}
    assert left["orders"]["ready"] >= 61, out + err
    status, out, err = shop.call("raycelery", "drain", "-A", shop.module, "--until-empty")
    assert status == 1, out + err
    assert "moved to Ray: 62" in out, out + err
    assert "left in the broker: 1" in out
    until(lambda: len(shop.runs()) == 61, 60, shop.runs)
    assert {line[1] for line in shop.notes()} == {one.id for one in [*sent, soon]}
    assert shop.runs().total() == 61
    status, out, err = shop.call("raycelery", "status", "-A", shop.module, "--why", later.id)
    assert "in 60 min" in out, out + err
