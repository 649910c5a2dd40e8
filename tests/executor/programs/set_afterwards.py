import hooks
from celery import signals
from kombu import Queue

from raycelery import Celery

app = Celery("set", strict_typing=False)
events = []


class ContextTask(app.Task):
    def __call__(self, *args, **kwargs):
        events.append("context")
        return self.run(*args, **kwargs)


# Flask's recipe.
app.Task = ContextTask
app.rate = 7
app.user_options["worker"].add("--shop")
app.autodiscover_tasks(["shop"])
app.amqp.queues.add(Queue("odd", routing_key="even"))
app.amqp.argsrepr_maxsize = 7


@signals.worker_init.connect
def init(sender=None, **_):
    events.append(f"worker_init {sender.app.main}")


@signals.import_modules.connect
def modules(**_):
    events.append("import_modules")


@app.on_after_configure.connect
def configured(sender, **_):
    sender.add_periodic_task(60, what.s())
    events.append("configured")


@app.on_after_finalize.connect
def finalized(sender, **_):
    events.append("finalized")


app.on_after_finalize.connect(hooks.finalized)


@app.task(bind=True)
def what(self):
    return events, app.rate, self.max_retries, len(app.conf.beat_schedule)


@app.task
def sent():
    return app.amqp.queues["odd"].routing_key, app.amqp.argsrepr_maxsize, len(app.user_options["worker"])


@app.task
def untyped(x):
    return what.apply_async((1, 2, 3), countdown=600).revoke()


@app.task
def setting():
    return app.conf.get("shop_limit"), app.conf.task_ignore_result


what.max_retries = 9
app.finalize()  # calls the hooks here
events.clear()
seen, *others = what.delay().get(timeout=80)
assert sorted(seen) == ["configured", "context", "finalized", "hooks", "import_modules", "worker_init set"], seen
assert others == [7, 9, 1], others
assert sent.delay().get(timeout=80) == ("even", 7, 1)
assert app.send_task("shop.tasks.hello").get(timeout=80) == "hello"
untyped.delay(1).get(timeout=80)
assert setting.delay().get(timeout=80) == (None, False)
app.conf.shop_limit = 3
assert setting.delay().get(timeout=80) == (3, False)
app.rate = 8
assert what.delay().get(timeout=80)[1] == 8
print("ok")
