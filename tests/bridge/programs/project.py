import os
import pathlib
import signal
import time

from celery import Celery

app = Celery("project")
HERE = pathlib.Path(__file__).parent


def trace(name, text=""):
    with open(HERE / (name + ".trace"), "a") as file:
        file.write(f"{os.getpid()} {time.time()} {text}\n")


@app.task
def add(x, y):
    return x + y


@app.task
def total(values):
    return sum(values)


@app.task(bind=True, acks_late=True)
def late(self, name, seconds=0.0):
    trace(name, f"begin {self.request.id}")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (HERE / "go").exists():
        time.sleep(0.02)
    trace(name, f"end {self.request.id}")
    return name


@app.task(bind=True)
def early(self, name, seconds=0.0):
    return late.run(name, seconds)


@app.task
def fail(text):
    raise ValueError(text)


@app.task(bind=True, max_retries=3)
def flaky(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0, exc=OSError("again"))
    return self.request.retries


@app.task(acks_late=True, reject_on_worker_lost=True)
def deadly(name):
    trace(name)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def dies(name):
    trace(name)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(soft_time_limit=3)
def soft():
    try:
        time.sleep(30)
    except Exception as exc:
        return type(exc).__name__


@app.task(time_limit=2)
def hard():
    time.sleep(30)


@app.task(num_cpus=2)
def where():
    from raycelery.executor import request

    return os.getpid(), request["CPU"]


@app.task
def pid():
    return os.getpid()
