"""Bridges on every form of URL that kombu takes for Redis: all of it with messages fetched many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery
import kombu
import pytest

from raycelery.bridge import consumer_step, redis_transport
from tests import brokers, support
from tests.bridge import support as bridge
from tests.bridge.support import Worker
from tests.brokers import Redis
from tests.support import until

Start = Callable[..., Worker]


def test_tls_where_only_the_scheme_says_so(bridge_worker: Start, tmp_path: Path) -> None:
    with brokers.redis(tls=True) as broker:
        shop = bridge.write(tmp_path, broker.url, f"{broker.url}?ssl_cert_reqs=CERT_NONE")
        bridge_worker(shop)
        results = [shop.send("add", i, 1) for i in range(20)]
        assert [result.get(timeout=60) for result in results] == list(range(1, 21))
        assert shop.send("flaky", 1).get(timeout=60) == 1


@pytest.fixture(scope="module")
def broker() -> Iterator[Redis]:
    with brokers.redis() as broker:
        yield broker


@pytest.fixture(scope="module")
def sentinel_url(broker: Redis) -> Iterator[str]:
    with brokers.sentinel(broker) as url:
        yield url


@pytest.mark.parametrize("form", ["plain", "socket", "failover", "list", "sentinel", "sentinels"])
def test_a_form_of_url(form: str, broker: Redis, request: pytest.FixtureRequest) -> None:
    nobody = f"127.0.0.1:{support.free_port()}/0"
    url: Any = {
        "plain": broker.url,
        "socket": broker.socket_url,
        "failover": f"redis://{nobody};{broker.url}",
        "list": [f"redis://{nobody}", broker.url],
    }.get(form)
    if url is None:
        url = request.getfixturevalue("sentinel_url")
        url = f"sentinel://{nobody};{url}" if form == "sentinels" else url
    app = celery.Celery(broker=url, set_as_current=False)
    app.conf.broker_transport_options = {"master_name": "shop"} if "sentinel" in form else {}
    consumer_step.choose_transport(app)
    queue = kombu.Queue(f"q.{form}")
    bodies: list[Any] = []

    def take(body: Any, message: kombu.Message) -> None:
        bodies.append(body)
        message.ack()

    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=5, interval_start=0, interval_step=0.1)
        channel = connection.default_channel
        assert isinstance(channel, redis_transport.Channel)
        fetched: list[int] = []
        channel.room = lambda: fetched.append(1) or 64
        with connection.Consumer([queue], callbacks=[take]):
            with connection.Producer() as producer:
                for number in range(20):
                    producer.publish(number, routing_key=queue.name)
            while len(bodies) < 20:
                connection.drain_events(timeout=10)
            channel.qos.send_acks()
            assert sorted(bodies) == list(range(20))
            # More than one at a time, and nothing is left.
            assert 0 < len(fetched) < 10
            until(lambda: not channel.client.hlen("unacked"))
