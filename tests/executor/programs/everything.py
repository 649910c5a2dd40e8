import dataclasses
import os

from celery import Task, chord, shared_task

from raycelery import Celery

app = Celery("script", broker="redis://nowhere:1", backend="redis://nowhere:1")
RATE = 3
cache = {}


class ZoneError(Exception):
    def __init__(self, zone, code):
        super().__init__(zone, code)
        self.zone, self.code = zone, code


@dataclasses.dataclass
class Zone:
    name: str
    trips: int


def helper(x):
    return other_helper(x) * RATE


def other_helper(x):
    return x + 1


class Base(Task):
    def on_success(self, retval, task_id, args, kwargs):
        cache["last"] = retval


@app.task(base=Base)
def compute(x):
    return helper(x)


@app.task
def make(name):
    return Zone(name, RATE)


@app.task
def count(zones):
    cache[os.getpid()] = cache.get(os.getpid(), 0) + 1
    return sum(zone.trips for zone in zones), cache[os.getpid()]


@app.task
def fail(zone):
    raise ZoneError(zone, 7)


@app.task
def caller(x):
    # A task that is defined below, by its name in this script.
    return (compute.s(x) | last.s()).apply_async().get(disable_sync_subtasks=False)


@app.task(bind=True, autoretry_for=(ZoneError,), retry_backoff=False, default_retry_delay=0, max_retries=3)
def retried(self):
    if self.request.retries < 2:
        raise ZoneError("JFK", self.request.retries)
    return self.request.retries


@app.task
def last(x):
    return -x


@app.task
def total(values):
    return sum(values)


@shared_task
def shared(x):
    return helper(x)


if __name__ == "__main__":
    assert compute.name == "script.compute"
    assert compute.delay(1).get(timeout=90) == 6
    zone = make.delay("EWR").get(timeout=90)
    assert type(zone) is Zone and zone == Zone("EWR", 3)
    assert count.delay([zone, zone]).get(timeout=90)[0] == 6
    try:
        fail.delay("LGA").get(timeout=90)
    except ZoneError as exc:
        assert (exc.zone, exc.code) == ("LGA", 7)
    else:
        raise AssertionError
    assert caller.delay(1).get(timeout=90) == -6
    assert retried.delay().get(timeout=90) == 2
    assert shared.delay(2).get(timeout=90) == 9
    assert chord([compute.s(i) for i in range(3)], total.s()).delay().get(timeout=90) == 18
    counts = [count.delay([zone]).get(timeout=90)[1] for _ in range(4)]
    assert counts[-1] > counts[0], "globals of a script persist in a warm executor"
    print("ok")
