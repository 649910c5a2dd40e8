from multiprocessing import get_context

import south

from raycelery import Celery
from raycelery.protocol import questions

app = Celery("crossing-north", set_as_current=False)
app.conf.ray_idle_seconds = 1


@app.task
def ask(x):
    return south.double.delay(x).get(disable_sync_subtasks=False)


@app.task
def ask_when(_):
    return south.when.delay().get(disable_sync_subtasks=False)


@app.task
def start(x):
    return south.double.delay(x).id


@app.task
def hand_over(x):
    return south.double.delay(x)


@app.task
def name():
    return app.session.name, south.app.session.name


@app.task
def revoke_waiting():
    result = south.double.apply_async((1,), countdown=600)
    result.revoke()
    return result.id


@app.task
def look():
    """What the other application's remote control and status say, and what is changed by them."""
    result = south.double.apply_async((1,), countdown=600)
    control = south.app.control
    [scheduled] = control.inspect(timeout=20).scheduled().values()
    [answer] = control.time_limit("south.double", hard=50, soft=40, reply=True, timeout=20)
    status = south.app.client.call(questions.Overview())
    result.revoke()
    return (
        [one["request"]["id"] == result.id for one in scheduled],
        list(answer.values()),
        status["application"],
        status["scheduled"],
        list(south.app.client.call(questions.TimeLimits())),
        list(app.client.call(questions.TimeLimits())),
    )


def _in_child(connection):
    # One application that the parent is connected to, one that it is not.
    connection.send([r.get(disable_sync_subtasks=False) for r in (south.double.delay(5), start.delay(6))])


@app.task
def fork():
    here, there = get_context("fork").Pipe()
    child = get_context("fork").Process(target=_in_child, args=(there,), daemon=True)
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(80) else None
    finally:
        child.kill()
