"""A Ray cluster as an administrator starts one, and programs on it, with Ray's own defaults."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.scripts import ROOT
from tests.support import free_port, short_directory, stop, until

SECONDS = 100


def environment(home: Path, temporary: Path, **more: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing of Ray's, with a home and a place for Ray of their own."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
    scripts = Path(sys.executable).parent
    return {
        **bare,
        "HOME": str(home),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(temporary),
        **more,
    }


@dataclass
class Cluster:
    """A running cluster.

    Arguments:
        port: of its head.
        home: of the user who started it, with the token.
        temporary: where its files are.
        said: what ``ray start`` has said.
    """

    port: int
    home: Path
    temporary: Path
    said: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """For programs on this machine."""
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def ray_start(**env: str) -> Iterator[Cluster]:
    """Run ``ray start --head`` for a user who has a token, as any program with a Ray inside leaves one."""
    with short_directory("rc-h-") as home, short_directory("rc-c-") as temporary:
        environ = environment(home, temporary, **env)
        subprocess.run(["ray", "get-auth-token", "--generate"], env=environ, check=True, capture_output=True)
        port = free_port()
        log = home / "start.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ray", "start", "--head", f"--port={port}", "--num-cpus=2", "--block"],
                env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            until(
                lambda: "Ray runtime started" in log.read_text() or process.poll() is not None,
                2 * SECONDS,
                say=log.read_text,
            )
            assert process.poll() is None, log.read_text()
            yield Cluster(port, home, temporary, log.read_text(), environ)
        finally:
            stop(process)


def run(
    folder: Path, environ: Mapping[str, str], *command: str, status: int | None = 0, seconds: float = SECONDS
) -> tuple[str, str]:
    """Run a command to its end and return what it wrote to standard output and error.

    Arguments:
        folder: its working directory.
        environ: its environment.
        command: a program and its arguments.
        status: which exit status it must have; None: any.
        seconds: that it may take.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
    )
    assert status is None or done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


@contextlib.contextmanager
def running(folder: Path, environ: Mapping[str, str], *command: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a command meanwhile; yields it and the file that it writes to."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process, log
        finally:
            stop(process)
