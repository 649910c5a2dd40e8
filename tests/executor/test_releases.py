"""A project is deployed anew while the cluster stays up: each caller's messages run the code that the caller has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from raycelery import Celery
from raycelery.protocol import questions
from tests import scripts
from tests.support import ROOT, RaySession, until

SECONDS = 90
PROJECT = """
import os
from raycelery import Celery
import version

app = Celery("releases_NAME")
app.conf.ray_num_cpus = 0.5

@app.task
def where():
    import late
    return version.VERSION, late.VERSION, os.getcwd(), os.environ.get("RELEASE"), os.getpid()
"""


def release(folder: Path, name: str, version: int) -> Path:
    """Write a release of a project to a folder of its own."""
    folder = folder / f"v{version}"
    folder.mkdir()
    (folder / "proj.py").write_text(PROJECT.replace("NAME", name))
    for module in ("version", "late"):
        (folder / f"{module}.py").write_text(f"VERSION = {version}\n")
    return folder


def call(folder: Path, address: str, *arguments: str) -> str:
    """Run ``celery -A proj`` in a release's folder; return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.remove(''); from celery.__main__ import main; sys.exit(main())",
         "-A", "proj", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("executor", ["actor", "function"])
def test_a_release_in_a_folder_of_its_own(ray_session: RaySession, tmp_path: Path, executor: str) -> None:
    app = Celery(f"releases_{executor}", set_as_current=False)

    def where(folder: Path, version: int) -> int:
        task_id = call(folder, ray_session.address, "call", "proj.where")
        *found, pid = app.AsyncResult(task_id).get(timeout=SECONDS)
        assert found == [version, version, str(folder), None]
        return int(pid)

    first, second = (release(tmp_path, executor, version) for version in (1, 2))
    if executor == "function":
        for folder in (first, second):
            path = folder / "proj.py"
            path.write_text(path.read_text().replace("@app.task", "@app.task(executor='function')"))
        assert where(first, 1) != where(second, 2)
        (second / "version.py").write_text("VERSION = 33\n")
        (second / "late.py").write_text("VERSION = 33\n")
        where(second, 33)
        return
    old = where(first, 1)
    new = where(second, 2)
    # A process of the first release, which is idle, does not wait for ray_idle_seconds.
    until(lambda: len(app.client.call(questions.Stats())["executor_pids"]) == 1)
    shutil.rmtree(first)
    assert where(second, 2) != old
    # A release in the same folder: whatever was imported of the project is looked at, helpers too.
    for name in ("version", "late"):
        (second / f"{name}.py").write_text("VERSION = 33\n")
    assert where(second, 33) != new


def test_the_runtime_environment_is_that_of_the_callers_ray_job(ray_session: RaySession, tmp_path: Path) -> None:
    # As of `ray job submit --working-dir`: what started the dispatcher does not decide for those that come later.
    script = """
    import ray
    ray.init(namespace="raycelery", runtime_env={env})
    from proj import where
    version, late, cwd, variable, pid = where.delay().get(timeout=90)
    assert (version, late, variable) == {expected}, (version, late, variable)
    print("ok")
    """
    first, second, third = (release(tmp_path, "jobs", version) for version in (1, 2, 3))
    run = partial(scripts.run, address=ray_session.address)
    run(first, script.format(env={"working_dir": ".", "env_vars": {"RELEASE": "one"}}, expected=(1, 1, "one")))
    run(second, script.format(env={"working_dir": ".", "env_vars": {"RELEASE": "two"}}, expected=(2, 2, "two")))
    run(third, script.format(env={}, expected=(3, 3, None)))
