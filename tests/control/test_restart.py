"""A dispatcher that is killed comes back with what operators have set, and tools find it again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from raycelery.protocol import questions
from tests.control import shop
from tests.control.processes import APP, running
from tests.support import RaySession, until

SECONDS = 60
control = shop.app.control


def test_what_was_set_and_who_listened(ray_session: RaySession, tmp_path: Path) -> None:
    control.rate_limit("shop.add", "100/s")
    control.time_limit("shop.hold", hard=0.5)
    control.cancel_consumer("nights")
    control.cancel_consumer("days")
    control.add_consumer("days")
    waiting = shop.add.apply_async((1, 2), queue="nights")
    with running(ray_session, tmp_path, "celery", "-A", APP, "events", "--dump") as output:
        until(lambda: "heartbeat" in output.read_text(), say=output.read_text)
        client = shop.app.client
        before = client.call(questions.Overview())
        os.kill(before["dispatcher"]["pid"], signal.SIGKILL)
        until(lambda: not client.connected)

        after = shop.app.client.call(questions.Overview())
        assert after["dispatcher"]["pid"] != before["dispatcher"]["pid"]
        assert after["rates"]["shop.add"] == 100
        limits = {queue["name"]: queue["limit"] for queue in after["queues"]}
        assert limits["nights"] == 0
        assert limits.get("days") is None
        assert shop.app.client.call(questions.TimeLimits()) == {"shop.hold": (None, 0.5)}

        assert waiting.state == "PENDING"
        control.add_consumer("nights")
        assert waiting.get(timeout=SECONDS) == 3
        result = shop.add.delay(5, 6)
        assert result.get(timeout=SECONDS) == 11

        def heard() -> bool:
            later = shop.add.delay(7, 8)
            later.get(timeout=SECONDS)
            return later.id in output.read_text()

        until(heard, say=output.read_text)
    control.rate_limit("shop.add", 0)
    control.time_limit("shop.hold")
