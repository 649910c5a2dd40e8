from celery.utils.log import get_task_logger
from celery_app import app
from models import Predicts, Trainer

logger = get_task_logger(__name__)
calls = {}


@app.task
def train(zone, days=7):
    trainer = Trainer(zone)
    return trainer.fit(days)


@app.task(base=Predicts, bind=True)
def predict(self, x):
    return x, self.loads


@app.task
def total(values, factor=1):
    return [len(values) * factor, values]


@app.task(bind=True, max_retries=3)
def again(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0, exc=OSError(f"tried {self.request.retries} times"))
    return self.request.retries


@app.task(autoretry_for=(OSError,), max_retries=2, default_retry_delay=0)
def flaky(path, times):
    with open(path, "a") as file:
        file.write(".")
    with open(path) as file:
        if len(file.read()) <= times:
            raise OSError("not yet")
    return times


@app.task(bind=True)
def tells(self, x):
    self.update_state(state="PROGRESS", meta={"at": x})
    return self.request.id
