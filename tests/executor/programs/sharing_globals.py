from pathlib import Path

from celery.signals import worker_process_init

from raycelery import Celery

app = Celery("sharing")
model = None
limit = 10
history = []


@worker_process_init.connect
def load(**_):
    global model
    model = "loaded"


def remember(x):
    history.append(x)


@app.task
def predict(x):
    remember(x)
    return model, limit, len(history)


@app.task
def clear():
    history.clear()
    return Path(__file__).name


assert predict.delay(1).get(timeout=90) == ("loaded", 10, 1)
assert predict.delay(2).get(timeout=90) == ("loaded", 10, 2)
limit = 20


@app.task
def predict(x):
    remember(x)
    return model, limit, len(history)


assert predict.delay(3).get(timeout=90) == ("loaded", 20, 3), "what changed here is taken over, no more"
assert clear.delay().get(timeout=90) == "script.py"
assert predict.delay(4).get(timeout=90) == ("loaded", 20, 1)
back = lambda: limit  # noqa: E731
limit = 30


@app.task
def give():
    return back


assert give.delay().get(timeout=90)() == 30
assert limit == 30 and model is None, "nothing comes back by the way"
print("ok")
