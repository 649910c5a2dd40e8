"""An application in direct mode says once what its broker still holds."""

from __future__ import annotations

import logging
import uuid

import celery
import pytest

from raycelery import Celery
from tests import support
from tests.support import RaySession, until

LOGGER = "raycelery.switch.left"


def test_what_the_broker_still_holds_is_said_once(
    redis_url: str, ray_session: RaySession, caplog: pytest.LogCaptureFixture
) -> None:
    old = celery.Celery("left", broker=redis_url, set_as_current=False)
    queue = f"letters-{uuid.uuid4().hex}"
    for _ in range(3):
        old.send_task("left.work", queue=queue)
    app = Celery("left", broker=redis_url, set_as_current=False, ray_app_name="switched")
    app.conf.task_routes = {"left.*": {"queue": queue}}
    with caplog.at_level(logging.DEBUG, LOGGER):
        for _ in range(3):
            assert app.AsyncResult("none").state == "PENDING"
        until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"3 messages wait in the broker of left, which runs on Ray now and does not read them (3 in {queue})" in (
        record.getMessage()
    )
    assert "raycelery drain" in record.getMessage()


def test_nothing_is_said_where_the_broker_is_gone_or_that_is_turned_off(
    redis_url: str, ray_session: RaySession, caplog: pytest.LogCaptureFixture
) -> None:
    celery.Celery("left", broker=redis_url, set_as_current=False).send_task("left.work")
    off = Celery("left", broker=redis_url, set_as_current=False, ray_app_name="switched", ray_check_broker=False)
    gone = Celery("left", broker=f"redis://127.0.0.1:{support.free_port()}/0", set_as_current=False)
    gone.conf.ray_app_name = "switched"
    with caplog.at_level(logging.DEBUG, LOGGER):
        assert off.AsyncResult("none").state == gone.AsyncResult("none").state == "PENDING"
        until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    assert "is not looked at" in record.getMessage()
