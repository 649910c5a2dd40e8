# ruff: noqa: F401, I001 - as many ways to import Celery as projects have
import celery
import celery.utils.log
from celery import Celery, Task, chain, chord, group, shared_task, signature
from celery.app.task import Task as AppTask
from celery.contrib.abortable import AbortableTask
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, SoftTimeLimitExceeded
from celery.result import AsyncResult, GroupResult, allow_join_result
from celery.schedules import crontab
from celery.signals import task_failure, task_prerun, worker_process_init
from celery.utils.log import get_task_logger
import celery.states as states
from celery import signals as sig

app = Celery("project", broker="redis://nowhere", backend="redis://nowhere")
app.conf.beat_schedule = {"nightly": {"task": "project.add", "schedule": crontab(hour=3)}}
logger = celery.utils.log.get_task_logger(__name__)
ran = []


@task_prerun.connect
def before(**_):
    ran.append(1)


class Base(AppTask):
    def on_success(self, *args):
        logger.info("good")


@app.task(base=Base)
def add(x, y):
    return x + y, len(ran)


@app.task(bind=True, base=AbortableTask)
def aborting(self):
    return self.is_aborted()


@shared_task
def double(x):
    return 2 * x


@celery.current_app.task
def of_current(x):
    return x
