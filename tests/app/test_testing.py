"""A project's own tests, which use Celery's fixtures and ``start_worker`` under raycelery's name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support import ROOT, RaySession

SECONDS = 110

PROJECT = """
    import os
    from raycelery import Celery, shared_task

    app = Celery("project", broker="redis://nowhere", backend="redis://nowhere")

    @app.task
    def multiply(x, y):
        return x * y

    @shared_task
    def where():
        return os.getpid()

    class Hostile(Exception):
        pass

    @shared_task
    def fail():
        raise Hostile("no")
"""
CONFTEST = """
    import pytest

    pytest_plugins = ("raycelery.contrib.pytest",)

    @pytest.fixture(scope="session")
    def celery_config():
        return {"broker_url": "amqp://", "result_backend": "redis://", "task_default_queue": "of-tests"}

    @pytest.fixture(scope="session")
    def celery_includes():
        return ["project"]

    @pytest.fixture(scope="session")
    def celery_enable_logging():
        return True
"""
FIXTURES = """
    import os
    import pytest
    import project
    from celery.contrib.testing.tasks import ping

    @pytest.fixture(scope="session")
    def celery_worker_parameters():
        return {"queues": ("high-prio",), "perform_ping_check": True}

    def test_create_task(celery_app, celery_worker):
        @celery_app.task
        def mul(x, y):
            return x * y

        celery_worker.reload()
        assert mul.delay(4, 4).get(timeout=60) == 16
        assert project.where.delay().get(timeout=60) != os.getpid()

    def test_session(celery_session_app, celery_session_worker):
        assert project.where.delay().get(timeout=60) != os.getpid()
        with pytest.raises(project.Hostile):
            project.fail.delay().get(timeout=60)
        assert ping.delay().get(timeout=60) == "pong"

    @pytest.mark.celery(result_expires=77, task_always_eager=True)
    def test_mark(celery_app):
        assert celery_app.conf.result_expires == 77
        assert celery_app.conf.task_default_queue == "of-tests"
        assert celery_app.tasks[project.where.name].delay().get() == os.getpid()

    @pytest.mark.celery(ray_num_cpus=0.5)
    def test_eager_is_off_again(celery_app, celery_worker, celery_config):
        assert celery_config["broker_url"] == "amqp://"
        assert project.where.delay().get(timeout=60) != os.getpid()
"""
WORKER = """
    import os, unittest
    from raycelery.contrib.testing.worker import start_worker
    from raycelery.contrib.testing.app import TestApp
    import project

    def test_start_worker():
        with start_worker(project.app, perform_ping_check=False, pool="solo", concurrency=2) as worker:
            assert project.multiply.delay(6, 7).get(timeout=60) == 42
            assert worker.app is project.app

    def test_with_a_ping():
        with start_worker(project.app, ping_task_timeout=60, loglevel="info"):
            pass

    class TestInClass(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            cls.worker = start_worker(project.app, perform_ping_check=False)
            cls.worker.__enter__()

        @classmethod
        def tearDownClass(cls):
            super().tearDownClass()
            cls.worker.__exit__(None, None, None)

        def test_multiply(self):
            assert project.multiply.delay(2, 3).get(timeout=60) == 6

    def test_test_app():
        with TestApp("a-test", set_as_current=True) as app:
            @app.task
            def where():
                return os.getpid()
            with start_worker(app, perform_ping_check=False):
                assert where.delay().get(timeout=60) != os.getpid()

    def test_memory_urls_are_no_obstacle():
        app = TestApp("in-memory", config={"broker_url": "memory://", "result_backend": "cache+memory://"})
        @app.task(name="twice")
        def twice(x):
            return 2 * x
        with start_worker(app, perform_ping_check=False):
            assert twice.delay(4).get(timeout=60) == 8
"""


def _pytest(folder: Path, address: str, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    env = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-rA", "-x"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_fixtures(ray_session: RaySession, tmp_path: Path) -> None:
    out = _pytest(tmp_path, ray_session.address, project=PROJECT, conftest=CONFTEST, test_project=FIXTURES)
    assert "4 passed" in out


def test_start_worker(ray_session: RaySession, tmp_path: Path) -> None:
    out = _pytest(tmp_path, ray_session.address, project=PROJECT, test_project=WORKER)
    assert "5 passed" in out
