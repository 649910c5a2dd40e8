import time

from raycelery import Celery

app = Celery("crossing-south", set_as_current=False)
app.conf.ray_idle_seconds = 1


@app.task
def double(x):
    return 2 * x


@app.task
def total(values):
    return sum(values)


@app.task(max_concurrency=1)
def when():
    began = time.time()
    time.sleep(0.1)
    return began, time.time()


@app.task
def back(x):
    import north

    return x if x <= 0 else north.ask.delay(x).get(disable_sync_subtasks=False)
