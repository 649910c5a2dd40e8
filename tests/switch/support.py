"""A project in a folder of its own, which was Celery's and is on Ray now; its old producers, and commands on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery

from tests import support

PROJECT = Path(__file__).with_name("project.py")


@dataclass
class Project:
    """A project.

    Arguments:
        module: its name.
        directory: where it is.
        address: of the Ray that it runs on.
        old: a stock application, as in producers that run the old code.
    """

    module: str
    directory: Path
    address: str
    old: celery.Celery

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        """Publish a call to the broker, as the old code does."""
        return self.old.send_task(f"{self.module}.{task}", args, **options)

    def notes(self, folder: str = ".") -> list[list[str]]:
        """What its tasks have noted; those of the old code are in the folder `old`."""
        path = self.directory / folder / "notes"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def trail(self, name: str) -> list[list[str]]:
        """Where a call was tried: what it noted on Ray, and on workers."""
        return [[folder, *line] for folder in (".", "old") for line in self.notes(folder) if name in line]

    def runs(self) -> Counter[str]:
        """How often each call has run, by its first argument."""
        return Counter(line[0] for line in self.notes())

    def start(self, *command: str, old: bool = False, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command on it, or on its old code."""
        directory = self.directory / "old" if old else self.directory
        path = os.pathsep.join([str(directory), str(support.ROOT)])
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": self.address},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *command: str) -> tuple[int, str, str]:
        """Run one; its exit status, and what it wrote to standard output and standard error."""
        process = self.start(*command)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err


def write(directory: Path, address: str, broker: str, backend: str, **settings: Any) -> Project:
    """Write the project to a folder, as it is on Ray."""
    module = f"moved_{os.getpid()}_{support.free_port()}"
    made = f"app = Celery({module!r}, broker={broker!r}, backend={backend!r})\napp.conf.update({settings!r})\n"
    text = PROJECT.read_text().replace('app = Celery("project")\n', made)
    (directory / "old").mkdir()
    (directory / "old" / f"{module}.py").write_text(text)
    (directory / f"{module}.py").write_text(text.replace("from celery import", "from raycelery import"))
    old = celery.Celery(module, broker=broker, backend=backend, set_as_current=False)
    old.conf.update({name: value for name, value in settings.items() if not name.startswith("ray_")})
    return Project(module, directory, address, old)
