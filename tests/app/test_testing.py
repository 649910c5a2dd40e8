"""A project's own tests, which use Celery's fixtures and ``start_worker`` under raycelery's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import scripts
from tests.support import ROOT, RaySession

PROGRAMS = Path(__file__).parent / "programs"

SECONDS = 110

PROJECT = PROGRAMS / "tested_project.py"
CONFTEST = PROGRAMS / "tested_conftest.py"
FIXTURES = PROGRAMS / "tests_with_fixtures.py"
ON_RAY = PROGRAMS / "tests_on_ray.py"
WORKER = PROGRAMS / "tests_with_start_worker.py"


def _pytest(folder: Path, address: str, **files: Path) -> str:
    for name, file in files.items():
        scripts.write(folder / f"{name}.py", file)
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
