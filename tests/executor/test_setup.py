"""What a project does in a worker before it forks is done in executors, in Celery's order; what is not is named."""

from __future__ import annotations

import pytest

from tests.scripts import Run

#: What prefork children inherit, in the order in which Celery's worker does it (tried with `celery worker -c 1`).
ORDER = [
    "loader.on_worker_init",
    "celeryd_init",
    "worker_init",
    "setup_logging",
    "First.__init__",
    "Second.__init__",
    "Second.create",
    "celeryd_after_setup",
    "loader.on_worker_process_init",
    "worker_process_init",
]
PROJECT = """
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
"""


@pytest.mark.parametrize("executor", ["actor", "function"])
def test_what_prefork_children_inherit(run: Run, executor: str) -> None:
    said = run(
        f"""
        from shop import done
        for _ in range(3):
            result = done.apply_async(executor={executor!r})
            steps, priority, heard = result.get(timeout=90)
            assert heard[-1:] == [result.id]
        assert priority == 7
        # An executor for functions begins anew for each message, in the process that there is.
        again = steps[{len(ORDER)}:]
        assert steps[:{len(ORDER)}] == {ORDER}, steps
        assert set(again) <= set({ORDER[-2:]}), again
        print("ok")
        """,
        shop=PROJECT.replace("PACKAGE", "raycelery"),
    )
    assert "these do not run: the bootstep shop.NeedsTimer" not in said, "it has no start of its own"
    assert "these do not run: the bootstep shop.Second" in said


def test_what_does_not_run_is_named_where_the_program_starts(run: Run) -> None:
    said = run(
        """
        from shop import done
        assert done.delay().get(timeout=90) == []
        print("ok")
        """,
        shop="""
        from celery import bootsteps, signals
        from raycelery import Celery
        app = Celery("shop")
        DONE = []

        @signals.worker_ready.connect
        def announce(**_): DONE.append(1)

        @signals.celeryd_init.connect(sender="nights@example.com")
        def nights(**_): DONE.append(2)

        class Probe(bootsteps.StartStopStep):
            def start(self, worker): DONE.append(3)

        class More(bootsteps.ConsumerStep):
            def __init__(self, consumer, **_): DONE.append(4)

        app.steps["worker"].add(Probe)
        app.steps["consumer"].add(More)

        @app.task
        def done(): return DONE
        """,
    )
    assert "there is no worker process in direct mode, so these do not run: the bootstep shop.More, " in said
    assert "the bootstep shop.Probe, announce of worker_ready (ray_mode='bridge' has one)" in said
    assert "handlers for a worker's name do not run in executors, which have none: nights of celeryd_init" in said
