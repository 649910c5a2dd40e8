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

PROGRAMS = Path(__file__).parent / "programs"

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


PROJECT = (PROGRAMS / "imports.py").read_text()
USE = PROGRAMS / "imports_used.py"


def test_a_blind_replacement_of_the_name(run: Run) -> None:
    run(USE, project=PROJECT.replace("celery", "raycelery"))


def test_one_import_changed(run: Run) -> None:
    both = "from raycelery import Celery\nfrom celery import Task"
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
