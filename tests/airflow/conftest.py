"""A cluster with a dashboard, and a home for Airflow with a database of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(home))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        patch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(home / "dags"))
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, timeout=200)
        yield home


@pytest.fixture(scope="session")
def dashboard() -> Iterator[str]:
    """URL of the dashboard of a cluster of two CPUs."""
    with support.dashboard() as url:
        yield url
