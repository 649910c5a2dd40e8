"""Runs a legacy project as it is, on stock Celery, and migrated, on Ray without a Redis."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool.cli import main
from tests import support

SOURCES = support.ROOT / "legacy_examples"
#: What the READMEs tell to do with sed. Modules of a project's own that are called celery or celery_app are left alone.
SWAP = (re.compile(r"^(from|import) celery\b", re.M), r"\1 raycelery")
#: The commands of ``raycelery-migrate`` that projects are migrated by. Where ``actors`` leaves all tasks on raycelery,
#: it is ``shim`` with comments, so running that too is not for every time.
WAYS = ["shim", pytest.param("actors", marks=pytest.mark.slow)]

#: Lines that Ray passes on from its own processes and from workers.
_OF_RAY = re.compile(r"(\x1b\[\d+m)?\((raylet|autoscaler|.* pid=\d+)\b")


@dataclass(frozen=True)
class Project:
    """A copy of a legacy project.

    Arguments:
        folder: where it is.
        env: added to the environment of what is run in it.
    """

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of what is run in it; ``raycelery`` is found there as if installed."""
        return {**os.environ, "PYTHONPATH": str(support.ROOT), **self.env, **more}

    def run(self, *arguments: str, seconds: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the project's folder, as the company does, without Ray's notices in its output."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environ(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        lines = done.stdout.splitlines(keepends=True)
        done.stdout = "".join(line for line in lines if not _OF_RAY.match(line))
        return done

    def says(self, *arguments: str, seconds: float = 300, **environment: str) -> str:
        """What a command that must succeed writes to its standard output."""
        done = self.run(*arguments, seconds=seconds, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str, **environment: str) -> object:
        """What a piece of code in the project's folder prints as JSON."""
        return json.loads(self.says("-c", textwrap.dedent(code), **environment))


def migrate(way: str, folder: Path) -> None:
    """Migrate what is in a folder by a command of ``raycelery-migrate``."""
    done = CliRunner().invoke(main, [way, "--write", "--jobs", "1", str(folder)])
    assert done.exit_code in (0, 1), done.output
    originals = list(folder.rglob("*.orig"))
    assert originals
    for path in originals:
        path.unlink()


def copy(name: str, folder: Path, way: str | None = None, env: dict[str, str] | None = None) -> Project:
    """Copy a project, as a user who tries raycelery would.

    Arguments:
        name: its folder in ``legacy_examples``.
        folder: where the copy's folder is made.
        way: the command to migrate it by; None for not at all.
        env: added to the environment of what is run in it.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.csv", "*.log", "*.sqlite3", "*.joblib")
    target = Path(shutil.copytree(SOURCES / name, folder / name, ignore=ignored))
    if way is not None:
        migrate(way, target)
    return Project(target, env or {})


@contextlib.contextmanager
def on_celery(name: str, folder: Path, url: str, module: str, *arguments: str) -> Iterator[Project]:
    """Copy a project and run two worker processes for it.

    Arguments:
        name: its folder in ``legacy_examples``.
        folder: where the copy's folder is made.
        url: of the Redis that is broker and result backend.
        module: what ``celery -A`` takes.
        arguments: more of the worker's.
    """
    project = copy(name, folder, env={"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url})
    with support.stock_worker(module, url, project.folder, *arguments, concurrency=2, env=project.env):
        yield project


def on_raycelery(name: str, folder: Path, way: str = "shim", **env: str) -> Project:
    """Copy a project and migrate it; where its Redis should be, nothing answers.

    Arguments:
        name: its folder in ``legacy_examples``.
        folder: where the copy's folder is made.
        way: the command to migrate it by.
        env: more of the environment of what is run in it.
    """
    nowhere = f"redis://127.0.0.1:{support.free_port()}/0"
    return copy(name, folder, way, env={"CELERY_BROKER_URL": nowhere, "CELERY_RESULT_BACKEND": nowhere, **env})
