import logging
import os
import threading

from raycelery import Celery, shared_task

app = Celery("project", broker="redis://nowhere", backend="redis://nowhere")


@app.task
def multiply(x, y):
    return x * y


SETTING = "of the project"
threads = []


def fetch():
    raise OSError("the network is not to be used")


@shared_task
def look(variable):
    logging.getLogger(__name__).warning("looking at %s", variable)
    print("printed by the task")
    threads.append(threading.current_thread().name)
    return os.getpid(), SETTING, os.environ[variable], fetch()


@shared_task
def give_back(value):
    return value


@shared_task
def add(x, y):
    return x + y


@shared_task
def total(numbers):
    return sum(numbers)


@shared_task(bind=True)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.01)
    return self.request.retries


@shared_task
def where():
    return os.getpid()


class Hostile(Exception):
    pass


@shared_task
def fail():
    raise Hostile("no")
