"""Writes what would be sent to Sentry about a task's error into a file named after the task."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(event: dict[str, Any], hint: Any) -> None:
    """Write an event; to be Sentry's ``before_send``, which sends what it returns."""
    path = Path(os.environ["CELERY_ECOSYSTEM_EVENTS"], event["tags"]["celery_task_id"])
    path.with_suffix(".new").write_text(json.dumps(event, default=str))
    path.with_suffix(".new").rename(path)
