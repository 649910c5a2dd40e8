"""Environments of executors: several versions of one package, variables, what cannot be set up, numeric threads."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import WorkerLostError

from raycelery import Celery
from raycelery.errors import OptionError

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 90

app = Celery("environment")


@app.task
def version() -> tuple[str, str]:
    import modelkit

    return modelkit.__version__, modelkit.train()


@app.task
def versions_below() -> list[tuple[str, str]]:
    """A task in one environment calls one in its own."""
    return [version.delay().get(disable_sync_subtasks=False)]


@app.task
def variable(name: str) -> str | None:
    return os.environ.get(name)


@app.task
def folder() -> tuple[str, list[str]]:
    return os.getcwd(), sorted(os.listdir())


@app.task
def threads(seconds: float = 0.0) -> dict[str, Any]:
    """Return how many threads numpy's and scikit-learn's libraries use, and joblib's count of CPUs."""
    import joblib
    import numpy as np
    import threadpoolctl
    from sklearn.cluster import KMeans

    KMeans(2, n_init=1).fit(np.random.default_rng(0).random((500, 4)))
    np.ones((300, 300)) @ np.ones((300, 300))
    time.sleep(seconds)
    pools = threadpoolctl.threadpool_info()
    return {
        "pid": os.getpid(),
        "apis": {pool["user_api"] for pool in pools},
        "counts": {pool["num_threads"] for pool in pools},
        "jobs": joblib.effective_n_jobs(-1),
        "variable": os.environ["OMP_NUM_THREADS"],
    }


@pytest.fixture
def kits(tmp_path: Path) -> dict[int, str]:
    """Folders of two versions of the package ``modelkit``."""
    found = {}
    for number in (1, 2):
        package = tmp_path / f"v{number}" / "modelkit"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            f"from modelkit.inner import train\n__version__ = '{number}.0'\n__all__ = ['train']\n"
        )
        (package / "inner.py").write_text(f"def train():\n    return 'trained by {number}'\n")
        found[number] = str(package)
    return found


def test_two_versions_of_one_package_at_a_time(kits: dict[int, str]) -> None:
    results = {
        number: [version.apply_async(runtime_env={"py_modules": [kits[number]]}) for _ in range(3)] for number in kits
    }
    for number, calls in results.items():
        assert {tuple(call.get(timeout=SECONDS)) for call in calls} == {(f"{number}.0", f"trained by {number}")}
    with pytest.raises(ModuleNotFoundError, match="modelkit"):
        version.delay().get(timeout=SECONDS)


def test_a_local_working_dir_is_where_the_task_runs(tmp_path: Path) -> None:
    (tmp_path / "zones.csv").write_text("EWR\n")
    (tmp_path / "modelkit.py").write_text("__version__ = '3.0'\ndef train():\n    return open('zones.csv').read()\n")
    env = {"working_dir": str(tmp_path)}
    cwd, names = folder.apply_async(runtime_env=env).get(timeout=SECONDS)
    assert (cwd == os.getcwd(), names) == (False, ["modelkit.py", "zones.csv"])
    assert version.apply_async(runtime_env=env).get(timeout=SECONDS) == ("3.0", "EWR\n")


def test_variables_add_up() -> None:
    app.conf.ray_runtime_env = {"env_vars": {"TENANT": "north", "STAGE": "test"}}
    try:
        call = variable.apply_async(("TENANT",), runtime_env={"env_vars": {"STAGE": "live"}})
        other = variable.apply_async(("STAGE",), runtime_env={"env_vars": {"STAGE": "live"}})
        assert (call.get(timeout=SECONDS), other.get(timeout=SECONDS)) == ("north", "live")
    finally:
        app.conf.ray_runtime_env = None


def test_a_folder_that_is_not_there_is_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nowhere"):
        version.apply_async(runtime_env={"py_modules": [str(tmp_path / "nowhere")]})
    with pytest.raises(OptionError, match=r"requirements\.txt"):
        version.apply_async(runtime_env={"pip": str(tmp_path / "requirements.txt")})


@pytest.mark.parametrize("executor", ["actor", "function"])
def test_an_environment_that_cannot_be_set_up_is_the_tasks_failure(executor: str) -> None:
    env = {"conda": f"no-such-{executor}"}
    result = variable.apply_async(("HOME",), runtime_env=env, executor=executor)
    with pytest.raises(WorkerLostError, match=r"(?s)runtime environment cannot be set up.*conda"):
        result.get(timeout=SECONDS)
    assert result.state == "FAILURE"
    assert variable.delay("HOME").get(timeout=SECONDS) == os.environ["HOME"], "others go on"


@pytest.mark.parametrize("cpus", [1, 2])
def test_numeric_libraries_use_as_many_threads_as_cpus_were_asked_for(cpus: int) -> None:
    got = threads.apply_async(num_cpus=cpus).get(timeout=SECONDS)
    assert got["apis"] == {"blas", "openmp"}
    assert (got["counts"], got["jobs"], got["variable"]) == ({cpus}, cpus, str(cpus))


def test_a_reused_worker_process_has_the_threads_of_its_present_task() -> None:
    seen: dict[int, set[int]] = {}
    for cpus in (1, 2, 3, 2, 1, 2):
        got = threads.apply_async(num_cpus=cpus, executor="function").get(timeout=SECONDS)
        assert (got["counts"], got["jobs"]) == ({cpus}, min(cpus, os.cpu_count() or 1))
        seen.setdefault(got["pid"], set()).add(cpus)
    assert len(seen) < 6, "Ray reuses worker processes"


def test_half_a_cpu_is_one_thread() -> None:
    assert threads.apply_async(num_cpus=0.5).get(timeout=SECONDS)["counts"] == {1}
    assert threads.apply_async(num_cpus=0).get(timeout=SECONDS)["counts"] == {1}
