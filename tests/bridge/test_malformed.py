"""What is no message, or none that may run: logged and rejected as Celery does, and the worker goes on."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery.exceptions import NotRegistered

from tests.bridge.support import Project, Worker
from tests.support import until

Make = Callable[..., Project]
Start = Callable[..., Worker]


@pytest.fixture
def queue(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    client.delete("celery", "unacked", "unacked_index")
    yield client
    client.close()


def envelope(shop: Project, **changes: Any) -> dict[str, Any]:
    """Return a sound message as kombu puts it into Redis."""
    task_id = str(uuid.uuid4())
    body = json.dumps([[1, 2], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
    message: dict[str, Any] = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": f"{shop.module}.add", "id": task_id, "retries": 0, "timelimit": [None, None],
                    "root_id": task_id, "parent_id": None, "argsrepr": "(1, 2)", "kwargsrepr": "{}"},
        "properties": {"correlation_id": task_id, "reply_to": "x", "delivery_mode": 2, "priority": 0,
                       "delivery_info": {"exchange": "", "routing_key": "celery"}, "body_encoding": "base64",
                       "delivery_tag": str(uuid.uuid4())},
    }  # fmt: skip
    for path, value in changes.items():
        part, _, key = path.partition("__")
        if key:
            message[part][key] = value
        else:
            message[part] = value
    return message


def fuzzed(shop: Project, random: random.Random) -> bytes:
    """Return a message with something wrong somewhere."""
    message = envelope(shop)
    kind = random.randrange(6)
    if kind == 0:
        raw = bytearray(json.dumps(message).encode())
        for _ in range(random.randint(1, 20)):
            raw[random.randrange(len(raw))] = random.randrange(256)
        return bytes(raw)
    if kind == 1:
        raw = json.dumps(message).encode()
        return raw[: random.randrange(len(raw))]
    odd = random.choice([None, 0, -1, [], {}, "", "x" * 50, True, [[]], {"a": 1}, 1e308])
    part = random.choice(["headers", "properties", None])
    target = message if part is None else message[part]
    key = random.choice(list(target))
    if kind == 2:
        del target[key]
    elif kind == 3:
        target[key] = odd
    elif kind == 4:
        message["body"] = base64.b64encode(random.randbytes(random.randrange(60))).decode()
    else:
        body = random.choice([None, 1, "x", {}, [], [1], [[], {}], [{}, [], {}], [[1], {"x": 2}, None], {"args": 3}])
        message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps(message).encode()


def test_what_is_no_message_is_dropped_and_the_worker_goes_on(
    project: Make, bridge_worker: Start, queue: redis.Redis
) -> None:
    shop = project()
    worker = bridge_worker(shop)
    bad = {
        "truncated": json.dumps(envelope(shop))[:200],
        "no json": "\xff\x00",
        "not an object": "[1, 2]",
        "no properties": json.dumps({"body": "", "headers": {}}),
        "body is not base64": json.dumps(envelope(shop, body="%%%")),
        "truncated body": json.dumps(envelope(shop, body=base64.b64encode(b'[[1, 2').decode())),
        "unknown content type": json.dumps(envelope(shop, **{"content-type": "application/x-none"})),
        "pickle": json.dumps(
            envelope(shop, body=base64.b64encode(b"\x80\x04K\x01.").decode(),
                     **{"content-type": "application/x-python-serialize", "content-encoding": "binary"})
        ),
        "unknown task": json.dumps(envelope(shop, headers__task="no.such.task", headers__id="unknown-1")),
        "no task": json.dumps(envelope(shop, headers={})),
    }  # fmt: skip
    for raw in bad.values():
        queue.lpush("celery", raw)
    assert shop.send("add", 2, 3).get(timeout=60) == 5
    with pytest.raises(NotRegistered):
        shop.app.AsyncResult("unknown-1").get(timeout=30)
    log = worker.log.read_text()
    assert "dropped an entry of queue 'celery' that is not a message" in log
    assert "Received unregistered task of type 'no.such.task'" in log
    assert "Refusing to deserialize" in log
    assert worker.process.poll() is None
    until(lambda: not queue.hlen("unacked") and not queue.llen("celery"))


def test_a_large_message_that_cannot_be_read_makes_no_large_log(
    project: Make, bridge_worker: Start, queue: redis.Redis
) -> None:
    shop = project()
    worker = bridge_worker(shop)
    body = base64.b64encode(b"\xff" * 1_000_000).decode()
    queue.lpush("celery", json.dumps(envelope(shop, body=body)))
    queue.lpush("celery", json.dumps(envelope(shop, body=body, **{"content-type": "application/x-none"})))
    queue.lpush("celery", json.dumps(envelope(shop, headers={"more": "\u00ff" * 1_000_000})))
    queue.lpush("celery", json.dumps(envelope(shop, headers__task=["\u00ff" * 1_000_000])))
    queue.lpush("celery", json.dumps(envelope(shop, headers__task="\u00ff" * 1_000_000)))
    queue.lpush("celery", b"\xff" * 1_000_000)
    assert shop.send("add", 2, 3).get(timeout=60) == 5
    log = worker.log.read_text()
    assert "Refusing to deserialize" in log or "Can't decode message body" in log
    assert max(map(len, log.splitlines())) < 50_000
    assert len(log) < 500_000


def test_protocol_1(project: Make, bridge_worker: Start, queue: redis.Redis) -> None:
    shop = project()
    bridge_worker(shop)
    shop.app.conf.task_protocol = 1
    assert shop.send("add", 4, 5).get(timeout=60) == 9


def fuzz(shop: Project, worker: Worker, queue: redis.Redis, count: int) -> None:
    generator = random.Random(7)
    with queue.pipeline() as pipe:
        for _ in range(count):
            pipe.lpush("celery", fuzzed(shop, generator))
        pipe.execute()
    until(lambda: not queue.llen("celery"), 120)
    assert shop.send("add", 2, 3).get(timeout=60) == 5
    assert worker.process.poll() is None


def test_fuzzed_messages(project: Make, bridge_worker: Start, queue: redis.Redis) -> None:
    shop = project()
    fuzz(shop, bridge_worker(shop, "-l", "CRITICAL"), queue, 500)


@pytest.mark.slow
def test_many_fuzzed_messages(project: Make, bridge_worker: Start, queue: redis.Redis) -> None:
    shop = project()
    fuzz(shop, bridge_worker(shop, "-l", "CRITICAL"), queue, 10_000)
