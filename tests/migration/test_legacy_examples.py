"""Every legacy example is migrated, in a copy, both ways; where it is known how to run it, it gives the same on Ray.

What to run in each project, and what of its output must be equal, is in ``RUNS``.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool.cli import main
from tests import support

EXAMPLES = support.ROOT / "legacy_examples"
PROJECTS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and list(path.rglob("*.py")))


@dataclass(frozen=True)
class Run:
    """How to run a project.

    Arguments:
        app: what ``celery -A`` takes.
        command: Python's arguments; its standard output is one half of what must be equal.
        output: the file that is the other half; None for none.
        same: what of the standard output must be equal.
    """

    app: str
    command: tuple[str, ...]
    output: str | None = None
    same: Callable[[str], object] = str


RUNS = {
    "zone_forecast": Run(
        "celery_app",
        ("train_all.py", "--zones", "1", "--output", "out.csv", "--timeout", "200"),
        "out.csv",
        lambda said: [line for line in said.splitlines() if "trained" not in line],
    ),
    "batch_scoring": Run("celery_app", ("score.py",)),
}
RUN = [name for name in PROJECTS if name in RUNS]


def copy(name: str, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "*.csv", "*.log", "*.sqlite3", "*.joblib")
    target = folder / name
    shutil.copytree(EXAMPLES / name, target, ignore=ignored)
    return target


def migrate(command: str, project: Path) -> None:
    done = CliRunner().invoke(main, [command, "--write", str(project)])
    assert done.exit_code in (0, 1), done.output
    for path in project.rglob("*.orig"):
        path.unlink()


def run(project: Path, plan: Run, **environment: str) -> tuple[object, str]:
    """What of a run must be equal."""
    done = subprocess.run(
        [sys.executable, *plan.command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(support.ROOT)]), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return plan.same(done.stdout), (project / plan.output).read_text() if plan.output else ""


@pytest.fixture(scope="module")
def stock(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[object, str]]:
    """What a project gives on stock Celery with Redis, worked out once."""
    known: dict[str, tuple[object, str]] = {}

    def results(name: str) -> tuple[object, str]:
        if name not in known:
            project = copy(name, tmp_path_factory.mktemp("stock"))
            urls = {"CELERY_BROKER_URL": redis_url, "CELERY_RESULT_BACKEND": redis_url}
            with support.stock_worker(RUNS[name].app, redis_url, project, concurrency=2, env=urls):
                known[name] = run(project, RUNS[name], **urls)
        return known[name]

    return results


@pytest.mark.parametrize("command", ["shim", "actors"])
@pytest.mark.parametrize("name", PROJECTS)
def test_a_migrated_project_parses_and_is_done_with(name: str, command: str, tmp_path: Path) -> None:
    project = copy(name, tmp_path)
    migrate(command, project)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    for path, content in before.items():
        if path.suffix == ".py":
            ast.parse(content)
    if command == "shim":
        assert not [
            path for path, content in before.items() if b"\nfrom celery import" in content and path.suffix == ".py"
        ]
    again = CliRunner().invoke(main, [command, "--check", str(project)])
    assert "would" not in again.stdout, again.output
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


@pytest.mark.timeout(700)
@pytest.mark.parametrize("command", ["shim", "actors"])
@pytest.mark.parametrize("name", RUN)
def test_a_migrated_project_gives_the_same_on_ray(
    name: str, command: str, stock: Callable[[str], tuple[object, str]], tmp_path: Path
) -> None:
    expected = stock(name)
    project = copy(name, tmp_path)
    migrate(command, project)
    nowhere = f"redis://127.0.0.1:{support.free_port()}/0"
    assert run(project, RUNS[name], CELERY_BROKER_URL=nowhere, CELERY_RESULT_BACKEND=nowhere) == expected
    if (name, command) == ("zone_forecast", "actors"):
        sources = "".join(path.read_text() for path in project.glob("*.py") if path.name != "celery_app.py")
        assert "from raycelery" not in sources
        assert "import celery" not in sources
