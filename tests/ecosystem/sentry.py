"""An application under sentry-sdk, whose errors are written into files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration

from raycelery import Celery
from tests.ecosystem import sent

sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1", integrations=[CeleryIntegration()], before_send=sent.write, traces_sample_rate=1.0
)
app = Celery("ecosystem-sentry", set_as_current=False)
app.conf.ray_idle_seconds = 5.0


@app.task
def fail() -> None:
    raise ValueError("no such zone")


class Noting(app.Task):  # type: ignore[misc, name-defined]
    def on_failure(self, exc: BaseException, task_id: str, *rest: Any) -> None:
        Path(os.environ["CELERY_ECOSYSTEM_EVENTS"], f"{task_id}.failed").touch()


@app.task(base=Noting)
def cancel() -> None:
    raise asyncio.CancelledError("no longer wanted")
