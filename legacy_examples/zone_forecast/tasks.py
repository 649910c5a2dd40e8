"""The tasks."""

import os
import time

from celery.utils.log import get_task_logger
from celery_app import app
from forecast import Forecast

logger = get_task_logger(__name__)


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def train_zone(self, origin: str, dest: str, daypart: str) -> dict:
    """Train, backtest and forecast one partition.

    A full disk or a file share that is away for a moment is tried again.
    """
    started, cpu = time.time(), time.process_time()
    logger.info("training %s-%s %s, attempt %d", origin, dest, daypart, self.request.retries + 1)
    result = Forecast(origin, dest, daypart).run()
    finished = time.time()
    result.update(
        pid=os.getpid(),
        started=started,
        finished=finished,
        wall_seconds=finished - started,
        cpu_seconds=time.process_time() - cpu,
    )
    logger.info(
        "%s-%s %s: off by %.2f departures a day, the baseline by %.2f; %.2f s",
        origin, dest, daypart, result["model_mae"], result["baseline_mae"], result["wall_seconds"],
    )  # fmt: skip
    return result
