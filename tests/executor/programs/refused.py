import threading

from kombu import serialization

from raycelery import Celery
from raycelery.errors import ArgumentError

lock = threading.Lock()


def guarded(*args, **kwargs):
    with lock:
        return args


class Named(Celery):
    def __init__(self, name):
        super().__init__(name)


def attribute(app):
    app.guard = lock


def setting(app):
    app.conf.shop_guard = lock


def packages(app):
    app.autodiscover_tasks(lambda: [lock])


def hook(app):
    app.on_after_configure.connect(guarded)


def task(app):
    app.tasks["refused.work"].guard = lock


def serializer(app):
    serialization.register("guarded", guarded, guarded, content_type="application/x-guarded")


def refused(change, word, app):
    @app.task(name="refused.work", shared=False)
    def work():
        pass

    if change:
        change(app)
    try:
        work.delay()
    except ArgumentError as exc:
        assert word in str(exc) and "refused" in str(exc) or "kombu" in word, exc
    else:
        raise AssertionError(word)


for change, word in [
    (attribute, "guard"),
    (setting, "'shop_guard'"),
    (packages, "autodiscover_tasks"),
    (hook, "hooks"),
    (task, "'guard' of the task"),
    (serializer, "kombu"),
]:
    refused(change, word, Celery("refused", set_as_current=False))
serialization.unregister("guarded")
refused(None, "Named", Named("refused"))
print("ok")
