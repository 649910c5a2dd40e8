"""``raycelery`` in place of ``celery`` in every import, or in some."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path

import celery
import pytest

import raycelery
from raycelery import Celery
from tests import scripts
from tests.scripts import Run
from tests.support import ROOT, RaySession

SUBMODULES = sorted(
    {
        "result", "schedules", "signals", "exceptions", "states", "canvas", "beat", "platforms", "security", "local",
        "utils", "utils.log", "utils.time", "utils.functional", "utils.nodenames", "utils.serialization",
        "contrib.abortable", "contrib.migrate", "contrib.rdb", "contrib.django.task", "contrib.testing.manager",
        "contrib.testing.mocks", "contrib.testing.tasks", "app.task", "app.base", "app.control", "app.defaults",
        "app.log", "app.routes", "app.trace", "app.utils", "backends.base", "backends.redis", "bin.celery",
        "concurrency.base", "events", "events.state", "events.snapshot", "fixups.django", "loaders.app", "loaders.base",
        "worker", "worker.control", "worker.request", "worker.state", "apps.worker",
    }
)  # fmt: skip


@pytest.mark.parametrize("name", SUBMODULES)
def test_a_submodule_is_celerys(name: str) -> None:
    module = importlib.import_module(f"raycelery.{name}")
    assert module is importlib.import_module(f"celery.{name}")
    assert module.__name__ == f"celery.{name}"
    assert module.__spec__ is not None
    assert module.__spec__.name == f"celery.{name}"
    importlib.reload(importlib.import_module("celery.schedules"))


def test_every_module_of_celery_is_there_or_raycelerys_own() -> None:
    names = {module.name.removeprefix("celery.") for module in pkgutil.walk_packages(celery.__path__, "celery.")}
    missing = [name for name in names if importlib.util.find_spec(f"raycelery.{name}") is None]
    assert missing == []
    assert importlib.util.find_spec("raycelery.no_such_module") is None


def test_the_module_has_what_celery_has() -> None:
    space: dict[str, object] = {}
    exec("from raycelery import *", space)
    assert set(celery.__all__) <= set(space)
    assert space["Celery"] is Celery
    assert issubclass(Celery, celery.Celery)
    for name in {name for name in celery.__all__ if not name.startswith("__")} - {"Celery"}:
        assert space[name] is getattr(celery, name), name
    assert set(dir(celery)) <= set(dir(raycelery))
    assert raycelery.App is Celery
    from raycelery.app import app_or_default, shared_task
    from raycelery.app.task import Task

    assert shared_task is celery.app.shared_task
    assert app_or_default is celery.app.app_or_default
    assert Task is celery.Task is raycelery.Task
    with pytest.raises(AttributeError, match="no_such_name"):
        raycelery.no_such_name  # noqa: B018


def test_a_process_that_submits_nothing_does_without_ray() -> None:
    script = """
        import sys
        from raycelery import Celery, chord, signature

        app = Celery("shop", broker="redis://localhost", ray_queues={"nightly": {"num_cpus": 2}})

        @app.task(num_cpus=0.5, max_concurrency=3)
        def add(x, y):
            return x + y

        app.finalize()
        chord([add.s(1, 2)], signature("other"))
        assert app.conf.ray_mode == "direct" and app.tasks[add.name](1, 2) == 3
        assert app.backend and app.control and app.amqp.queues and app.producer and app.AsyncResult("x").id == "x"
        print([name for name in sys.modules if name.partition(".")[0] in ("ray", "grpc")])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_an_application_is_pickled_as_in_celery() -> None:
    app = Celery("pickled", set_as_current=False, broker="redis://nowhere", ray_num_cpus=0.5)
    app.conf.task_default_queue = "mine"
    again = pickle.loads(pickle.dumps(app))
    assert type(again) is Celery
    assert (again.main, again.conf.task_default_queue, again.conf.ray_num_cpus) == ("pickled", "mine", 0.5)


PROJECT = """
    import celery
    import celery.utils.log
    from celery import Celery, Task, chain, chord, group, shared_task, signature
    from celery.app.task import Task as AppTask
    from celery.contrib.abortable import AbortableTask
    from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, SoftTimeLimitExceeded
    from celery.result import AsyncResult, GroupResult, allow_join_result
    from celery.schedules import crontab
    from celery.signals import task_failure, task_prerun, worker_process_init
    from celery.utils.log import get_task_logger
    import celery.states as states
    from celery import signals as sig

    app = Celery("project", broker="redis://nowhere", backend="redis://nowhere")
    app.conf.beat_schedule = {"nightly": {"task": "project.add", "schedule": crontab(hour=3)}}
    logger = celery.utils.log.get_task_logger(__name__)
    ran = []

    @task_prerun.connect
    def before(**_):
        ran.append(1)

    class Base(AppTask):
        def on_success(self, *args):
            logger.info("good")

    @app.task(base=Base)
    def add(x, y):
        return x + y, len(ran)

    @app.task(bind=True, base=AbortableTask)
    def aborting(self):
        return self.is_aborted()

    @shared_task
    def double(x):
        return 2 * x

    @celery.current_app.task
    def of_current(x):
        return x
"""
USE = """
    import project
    from celery.result import AsyncResult
    from raycelery.result import AsyncResult as Same

    assert Same is AsyncResult
    assert project.add.delay(1, 2).get(timeout=90) == (3, 1) or project.add.delay(1, 2).get(timeout=90)[0] == 3
    assert project.double.delay(4).get(timeout=90) == 8
    assert project.of_current.delay(4).get(timeout=90) == 4
    assert project.aborting.delay().get(timeout=90) is False
    result = project.double.delay(1)
    assert AsyncResult(result.id).get(timeout=90) == 2, "of the current application"
    assert project.group(project.double.s(i) for i in range(3)).delay().get(timeout=90) == [0, 2, 4]
    print("ok")
"""


def test_a_blind_replacement_of_the_name(run: Run) -> None:
    run(USE, project=PROJECT.replace("celery", "raycelery"))


def test_one_import_changed(run: Run) -> None:
    both = "from raycelery import Celery\n    from celery import Task"
    run(USE, project=PROJECT.replace("from celery import Celery, Task", both))


def test_no_brokers_library_is_needed(ray_session: RaySession, tmp_path: Path) -> None:
    scripts.run(
        tmp_path,
        """
        from celery import chord
        from project import double, total
        assert double.delay(2).get(timeout=90) == 4
        assert (double.s(1) | double.s()).delay().get(timeout=90) == 4
        assert chord([double.s(1), double.s(2)])(total.s()).get(timeout=90) == 6
        print("ok")
        """,
        ray_session.address,
        project="""
        from raycelery import Celery
        app = Celery("project", broker="redis://localhost:6379/0", backend="redis://localhost:6379/1")
        app.conf.task_send_sent_event = True

        @app.task
        def double(x):
            return 2 * x

        @app.task
        def total(values):
            return sum(values)
        """,
        redis="raise ImportError('redis is not installed')",
    )
