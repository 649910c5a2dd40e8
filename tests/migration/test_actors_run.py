"""A project that uses all that `actors` converts gives the same on plain Ray as on stock Celery with Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool.cli import main
from tests import support

#: A project with all that `actors` converts.
SHOP = Path(__file__).parent / "programs" / "shop"


def write(folder: Path) -> Path:
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(project: Path, url: str) -> list[str]:
    """What the project says; Ray says something too."""
    scratch = project.with_name(project.name + "-scratch")
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "main.py", str(scratch)],
        cwd=project,
        env={**os.environ, "URL": url, "PYTHONPATH": str(support.ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(">")]


@pytest.mark.timeout(900)
def test_all_that_is_converted_gives_the_same(redis_url: str, tmp_path: Path) -> None:
    stock, migrated = write(tmp_path / "stock"), write(tmp_path / "migrated")
    done = CliRunner().invoke(main, ["actors", "--write", "--jobs", "1", str(migrated)])
    assert "stays on raycelery" not in done.output
    for path in migrated.glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert path.name == "celery_app.py" or "celery" not in "".join(imports).replace("celery_app", ""), path
    assert "TrainerActor" in (migrated / "models.py").read_text()
    with support.stock_worker("celery_app", redis_url, stock, concurrency=2, env={"URL": redis_url}):
        expected = run(stock, redis_url)
    assert len(expected) > 15
    assert run(migrated, "redis://127.0.0.1:1/0") == expected
