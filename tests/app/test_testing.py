"""A project's own tests, which use Celery's fixtures and ``start_worker`` under raycelery's name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests import scripts
from tests.support import ROOT, RaySession

SECONDS = 110

PROJECT = """
    import logging
    import os
    import threading
    from raycelery import Celery, shared_task

    app = Celery("project", broker="redis://nowhere", backend="redis://nowhere")

    @app.task
    def multiply(x, y):
        return x * y

    SETTING = "of the project"
    threads = []

    def fetch():
        raise OSError("the network is not to be used")

    @shared_task
    def look(variable):
        logging.getLogger(__name__).warning("looking at %s", variable)
        print("printed by the task")
        threads.append(threading.current_thread().name)
        return os.getpid(), SETTING, os.environ[variable], fetch()

    @shared_task
    def give_back(value):
        return value

    @shared_task
    def add(x, y):
        return x + y

    @shared_task
    def total(numbers):
        return sum(numbers)

    @shared_task(bind=True)
    def flaky(self):
        if self.request.retries < 2:
            raise self.retry(countdown=0.01)
        return self.request.retries

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
    import logging
    import os
    import threading
    from unittest import mock
    import pytest
    import project
    from celery import chord
    from celery.contrib.testing.tasks import ping

    @pytest.fixture(scope="session")
    def celery_worker_parameters():
        return {"queues": ("of-tests", "high-prio"), "perform_ping_check": True}

    def test_create_task(celery_app, celery_worker):
        @celery_app.task
        def mul(x, y):
            return x * y

        celery_worker.reload()
        assert mul.delay(4, 4).get(timeout=30) == 16
        assert mul.apply_async((4, 5), queue="high-prio").get(timeout=30) == 20

    def test_a_task_sees_what_the_test_has_changed(celery_app, celery_worker, monkeypatch, caplog, capsys):
        monkeypatch.setattr(project, "SETTING", "of the test")
        monkeypatch.setenv("OF_THE_TEST", "set")
        with mock.patch("project.fetch", return_value="in place of it"):
            seen = project.look.delay("OF_THE_TEST").get(timeout=30)
        assert seen == (os.getpid(), "of the test", "set", "in place of it")
        assert threading.current_thread().name not in project.threads
        assert "looking at OF_THE_TEST" in caplog.text
        assert "printed by the task" in capsys.readouterr().out

    def test_values_that_json_does_not_know(celery_app, celery_worker):
        class Local:
            pass

        value = project.give_back.delay((Local, {1, 2})).get(timeout=30)
        assert type(value) is tuple and value[0] is Local and value[1] == {1, 2}

    def test_canvas_retries_and_errors(celery_app, celery_worker):
        add, total = project.add, project.total
        assert chord([add.s(n, n) for n in range(4)], total.s()).delay().get(timeout=30) == 12
        assert (add.s(1, 1) | add.s(2)).delay().get(timeout=30) == 4
        assert project.flaky.delay().get(timeout=30) == 2
        failed = project.fail.delay()
        with pytest.raises(project.Hostile, match="no"):
            failed.get(timeout=30)
        assert failed.state == "FAILURE" and "Hostile" in failed.traceback
        heard = []
        added = project.add.apply_async((3, 4), countdown=0.1)
        celery_app.AsyncResult(added.id).then(heard.append)
        added.then(heard.append)
        added.get(timeout=30)
        assert [result.result for result in heard] == [7, 7], "all that wait for a task are told"

    def test_session(celery_session_app, celery_session_worker):
        assert project.where.delay().get(timeout=30) == os.getpid()
        with pytest.raises(project.Hostile):
            project.fail.delay().get(timeout=30)
        assert ping.delay().get(timeout=30) == "pong"

    @pytest.mark.celery(result_expires=77, task_always_eager=True)
    def test_mark(celery_app):
        assert celery_app.conf.result_expires == 77
        assert celery_app.conf.task_default_queue == "of-tests"
        assert celery_app.tasks[project.where.name].delay().get() == os.getpid()

    @pytest.mark.celery(ray_num_cpus=0.5)
    def test_eager_is_off_again(celery_app, celery_worker, celery_config):
        assert celery_config["broker_url"] == "amqp://"
        assert project.where.delay().get(timeout=30) == os.getpid()

    def test_no_ray_was_started():
        import ray
        assert not ray.is_initialized()
"""
ON_RAY = """
    import os
    import pytest
    import project

    @pytest.fixture(scope="session")
    def celery_worker_pool():
        return "ray"

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
"""
WORKER = """
    import os, threading, unittest
    from raycelery.contrib.testing.worker import start_worker
    from raycelery.contrib.testing.app import TestApp
    import project

    def test_start_worker():
        with start_worker(project.app, perform_ping_check=False, pool="solo", concurrency=2) as worker:
            assert project.multiply.delay(6, 7).get(timeout=30) == 42
            assert worker.app is project.app
            assert list(project.app.control.inspect().active().values()) == [[]]

    def test_the_application_is_as_it_was():
        conf = project.app.conf
        assert project.app.direct
        assert (conf.broker_url, conf.result_backend) == ("redis://nowhere", "redis://nowhere")
        assert list(conf.accept_content) == ["json"] and "ray_mode" not in conf.changes

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
            assert project.multiply.delay(2, 3).get(timeout=30) == 6

    def test_one_worker_ends_and_the_other_goes_on():
        other = TestApp("other")
        @other.task(name="where-else")
        def where():
            return os.getpid()
        with start_worker(other, perform_ping_check=False):
            for number in range(3):
                with start_worker(project.app, perform_ping_check=False):
                    assert project.multiply.apply_async((2, number)).get(timeout=30) == 2 * number
            assert where.delay().get(timeout=30) == os.getpid()

    def test_threads_wait_for_each_other():
        meeting = threading.Barrier(2)
        app = TestApp("meeting")
        @app.task(name="meet", serializer="json")
        def meet():
            return meeting.wait(30) in (0, 1)
        with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
            assert [result.get(timeout=30) for result in (meet.delay(), meet.delay())] == [True, True]

    def test_test_app():
        with TestApp("a-test", set_as_current=True) as app:
            @app.task
            def where():
                return os.getpid()
            with start_worker(app, perform_ping_check=False):
                assert where.delay().get(timeout=30) == os.getpid()

    def test_memory_urls_are_no_obstacle_on_ray():
        app = TestApp("in-memory", config={"broker_url": "memory://", "result_backend": "cache+memory://"})
        @app.task(name="twice")
        def twice(x):
            return 2 * x, os.getpid()
        with start_worker(app, pool="ray", perform_ping_check=False):
            value, pid = twice.delay(4).get(timeout=60)
            assert value == 8 and pid != os.getpid()
"""


def _pytest(folder: Path, address: str, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    env = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", "-rA", "-x"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_fixtures(tmp_path: Path) -> None:
    out = _pytest(tmp_path, "", project=PROJECT, conftest=CONFTEST, test_project=FIXTURES)
    assert "8 passed" in out


def test_the_fixtures_on_ray(ray_session: RaySession, tmp_path: Path) -> None:
    out = _pytest(tmp_path, ray_session.address, project=PROJECT, conftest=CONFTEST, test_project=ON_RAY)
    assert "2 passed" in out


def test_start_worker(ray_session: RaySession, tmp_path: Path) -> None:
    out = _pytest(tmp_path, ray_session.address, project=PROJECT, test_project=WORKER)
    assert "8 passed" in out


def test_eager_tasks_start_no_ray(tmp_path: Path) -> None:
    scripts.run(
        tmp_path,
        """
        import ray
        from celery.result import AsyncResult
        from raycelery import Celery

        app = Celery("eager", broker="redis://nowhere.invalid", backend="redis://nowhere.invalid")
        app.conf.update(task_always_eager=True, task_store_eager_result=True)

        @app.task(bind=True)
        def steps(self):
            self.update_state(state="PROGRESS", meta={"done": 1})
            return AsyncResult(self.request.id, app=app).state

        @app.task
        def fail():
            raise ValueError("as asked")

        assert steps.delay().get() == "PROGRESS"
        result = steps.delay()
        stored = app.AsyncResult(result.id)
        assert (stored.state, stored.get()) == ("SUCCESS", "PROGRESS")
        stored.forget()
        assert app.AsyncResult(result.id).state == "PENDING"
        failed = app.AsyncResult(fail.delay().id)
        assert (failed.state, repr(failed.result)) == ("FAILURE", "ValueError('as asked')")
        assert app.AsyncResult("never-seen").state == "PENDING"
        assert not ray.is_initialized()
        print("ok")
        """,
    )
