from celery import bootsteps, signals
from celery.loaders.app import AppLoader
from PACKAGE import Celery

DONE = []
HEARD = []


class Loader(AppLoader):
    def on_worker_init(self):
        DONE.append("loader.on_worker_init")

    def on_worker_process_init(self):
        DONE.append("loader.on_worker_process_init")


app = Celery("shop", loader=Loader)


@signals.celeryd_init.connect
def init(sender, instance, conf, options, **_):
    assert instance.app is app and instance.hostname == sender and "concurrency" in options
    conf.task_default_priority = 7
    DONE.append("celeryd_init")


@signals.worker_init.connect
def worker_init(sender, **_):
    DONE.append("worker_init")


@signals.setup_logging.connect
def logging(**_):
    DONE.append("setup_logging")


@signals.celeryd_after_setup.connect
def after(sender, instance, **_):
    instance.app.amqp.queues.select_add(f"{sender}.dq")
    DONE.append("celeryd_after_setup")


@signals.worker_process_init.connect
def process(sender, **_):
    DONE.append("worker_process_init")


class First(bootsteps.Step):
    def __init__(self, worker, **options):
        super().__init__(worker, **options)
        # Held weakly, as signals do: it is called as long as the step lives.
        signals.task_prerun.connect(self.before)
        DONE.append("First.__init__")

    def before(self, task_id, **_):
        HEARD.append(task_id)


class Second(bootsteps.StartStopStep):
    requires = (First, "celery.worker.components:Timer")

    def __init__(self, worker, **options):
        DONE.append("Second.__init__")

    def create(self, worker):
        DONE.append("Second.create")

    def start(self, worker):
        DONE.append("Second.start")


class NeedsTimer(bootsteps.StartStopStep):
    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker, **options):
        worker.timer.call_repeatedly(60, print)


app.steps["worker"].update([NeedsTimer, Second, First])


@app.task
def done():
    return DONE, app.conf.task_default_priority, HEARD
