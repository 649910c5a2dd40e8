"""The Celery application: where its broker and its results are, and how its worker behaves."""

import os

from celery import Celery

app = Celery(
    "zone_forecast",
    broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/1"),
    include=["tasks"],
)

app.conf.update(
    timezone="UTC",
    # A training takes a fraction of a second; one that takes minutes hangs.
    task_soft_time_limit=90,
    task_time_limit=120,
    # A training that a dying worker had begun is done again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=True,
    # No child hoards trainings that another one could begin.
    worker_prefetch_multiplier=1,
    # What scikit-learn and pandas leak over thousands of fits goes with the child.
    worker_max_tasks_per_child=2000,
    result_expires=24 * 3600,
    broker_connection_retry_on_startup=True,
)
