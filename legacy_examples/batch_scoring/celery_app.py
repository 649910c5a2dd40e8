"""The Celery application."""

import os

from celery import Celery

app = Celery("batch_scoring", include=["tasks"])
app.conf.broker_url = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0")
app.conf.result_backend = os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/1")
app.conf.result_expires = 3600
app.conf.worker_prefetch_multiplier = 1
app.conf.task_annotations = {"tasks.score": {"time_limit": 60}}
app.conf.broker_connection_retry_on_startup = True

#: Where the model is; workers and the one who scores share this folder.
MODEL = os.environ.get("SCORING_MODEL", "model.joblib")
