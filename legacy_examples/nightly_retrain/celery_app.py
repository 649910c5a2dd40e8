"""The Celery application and its schedule."""

import os

from celery import Celery
from celery.schedules import crontab
from kombu import Queue

app = Celery(
    "nightly_retrain",
    broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"),
    backend=os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/1"),
    include=["tasks"],
)

app.conf.timezone = "America/New_York"
app.conf.task_queues = [Queue("celery"), Queue("training"), Queue("housekeeping")]
app.conf.task_routes = {
    "tasks.retrain_*": {"queue": "training"},
    "tasks.clean_*": {"queue": "housekeeping"},
}
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule_filename = os.environ.get("BEAT_SCHEDULE", "celerybeat-schedule")

app.conf.beat_schedule = {
    "retrain-nightly": {
        "task": "tasks.retrain_all",
        "schedule": crontab(hour=2, minute=30),
        "args": (["EWR", "JFK", "LGA"],),
        # One that could not start before the next day's would only be in its way.
        "options": {"expires": 20 * 3600, "queue": "training"},
    },
    "check-hourly": {
        "task": "tasks.check",
        "schedule": crontab(minute=15),
        "kwargs": {"largest_error": 15.0},
    },
    "clean-on-sundays": {
        "task": "tasks.clean_models",
        "schedule": crontab(hour=4, minute=0, day_of_week="sunday"),
        "kwargs": {"keep": 2},
    },
}
