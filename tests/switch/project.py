"""A project as its tests switch it: a copy of this file; what its tasks do is seen in a file beside it."""

from pathlib import Path

from celery import Celery

app = Celery("project")


def note(*parts):
    with (Path(__file__).parent / "notes").open("a") as notes:
        notes.write(" ".join(map(str, parts)) + "\n")


@app.task(bind=True, acks_late=True)
def work(self, name, more=None):
    request = self.request
    note(name, request.id, request.retries, request.delivery_info.get("priority"), (request.headers or {}).get("x-who"))
    return name


@app.task(bind=True, ignore_result=True)
def quiet(self, name):
    note(name, self.request.id, self.request.retries)


@app.task
def total(values):
    note("total", sum(map(len, values)))
    return sum(map(len, values))


@app.task(bind=True, max_retries=3)
def flaky(self, name):
    note("try", name, self.request.id, self.request.retries)
    if self.request.retries < 2:
        # Celery's workers may store the state of a try after the result of the next, if that begins at once.
        raise self.retry(countdown=0.5)
    note(name)
    return name


@app.task
def joined(values, name):
    assert sorted(values) == [f"{name}.a", f"{name}.b"]
    note(name)
    return name
