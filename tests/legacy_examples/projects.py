"""Runs a legacy project twice: as it is, on stock Celery; with its imports swapped, on raycelery without a Redis."""

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

from tests import support

SOURCES = support.ROOT / "legacy_examples"
#: What the READMEs tell to do with sed. Modules of a project's own that are called celery or celery_app are left alone.
SWAP = (re.compile(r"^(from|import) celery\b", re.M), r"\1 raycelery")

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


def copy(name: str, folder: Path, swap: bool = False, env: dict[str, str] | None = None) -> Project:
    """Copy a project, as a user who tries raycelery would.

    Arguments:
        name: its folder in ``legacy_examples``.
        folder: where the copy's folder is made.
        swap: whether to put ``raycelery`` for ``celery`` in its import lines.
        env: added to the environment of what is run in it.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.csv", "*.log", "*.sqlite3")
    target = Path(shutil.copytree(SOURCES / name, folder / name, ignore=ignored))
    if swap:
        swapped = 0
        for path in target.rglob("*.py"):
            text, count = SWAP[0].subn(SWAP[1], path.read_text())
            path.write_text(text)
            swapped += count
        assert swapped > 0
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


def on_raycelery(name: str, folder: Path, **env: str) -> Project:
    """Copy a project and swap its imports; where its Redis should be, nothing answers.

    Arguments:
        name: its folder in ``legacy_examples``.
        folder: where the copy's folder is made.
        env: more of the environment of what is run in it.
    """
    nowhere = f"redis://127.0.0.1:{support.free_port()}/0"
    return copy(name, folder, swap=True, env={"CELERY_BROKER_URL": nowhere, "CELERY_RESULT_BACKEND": nowhere, **env})
