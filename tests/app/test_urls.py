"""What a broker's URL tells of it in direct mode, in every form that kombu takes."""

from __future__ import annotations

from typing import Any

import pytest

from raycelery import Celery
from raycelery.app.urls import low_first


@pytest.mark.parametrize(
    "settings",
    [
        {"broker_url": "redis://localhost/0"},
        {"broker_url": "rediss://:secret@localhost/0?ssl_cert_reqs=CERT_REQUIRED"},
        {"broker_url": "sentinel://one:26379/0;sentinel://two:26379/0"},
        {"broker_url": "redis+socket:///run/redis.sock?virtual_host=0"},
        {"broker_url": "redis://one/0;redis://two/0"},
        {"broker_url": ["redis://one/0", "redis://two/0"]},
        {"broker_url": ("rediss://one/0",)},
        {"broker_url": "amqp://localhost//", "broker_write_url": "redis://localhost/0"},
        {"broker_url": "localhost", "broker_transport": "redis"},
    ],
)
def test_redis_serves_low_numbers_first(settings: dict[str, Any]) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(settings)
    assert low_first(app.conf)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"broker_url": "amqp://localhost//"},
        {"broker_url": "amqps://one//;amqps://two//"},
        {"broker_url": ["amqp://one//", "amqp://two//"]},
        {"broker_url": "sqla+sqlite:///broker.sqlite"},
        {"broker_url": "redis://localhost/0", "broker_write_url": "amqp://localhost//"},
    ],
)
def test_others_serve_high_numbers_first(settings: dict[str, Any]) -> None:
    app = Celery(set_as_current=False)
    app.conf.update(settings)
    assert not low_first(app.conf)
