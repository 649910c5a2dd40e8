import os
import threading
import time

import psutil
import ray

from raycelery import Celery
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import questions

app = Celery("mortal", ray_init={"num_cpus": 2})


@app.task
def nap(seconds):
    time.sleep(seconds)
    return seconds


assert nap.delay(0).get(timeout=90) == 0
errors = []


def wait():
    try:
        nap.delay(600).get(timeout=90)
    except DispatcherUnreachable as exc:
        errors.append(exc)


waiting = [threading.Thread(target=wait) for _ in range(2)]
for thread in waiting:
    thread.start()
while app.client.call(questions.Stats())["running"] < 2:
    time.sleep(0.01)
ray.kill(ray.get_actor("raycelery:mortal", namespace="raycelery"), no_restart=True)
for thread in waiting:
    thread.join(90)
assert len(errors) == 2, errors
assert "dispatcher" in str(errors[0])
assert nap.delay(0.01).get(timeout=90) == 0.01, "the next call starts another"

pending = nap.delay(600)
for child in psutil.Process().children(recursive=True):
    child.kill()  # as when the cluster's only node dies
for call in (lambda: pending.get(timeout=90), lambda: nap.delay(1).get(timeout=90), lambda: pending.state):
    try:
        call()
    except DispatcherUnreachable:
        pass
    else:
        raise AssertionError("nothing is left that could answer")
print("ok", flush=True)
os._exit(0)
