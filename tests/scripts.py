"""Runs programs of a user's own, each in a process of its own and in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support import ROOT

#: Seconds that a program may take.
SECONDS = 100

Run = Callable[..., str]


def write(path: Path, program: str | Path) -> None:
    """Write a program: its text, indented as one likes, or a copy of a file."""
    path.write_text(program.read_text() if isinstance(program, Path) else textwrap.dedent(program))


def run(
    folder: Path,
    script: str | Path,
    address: str | None = None,
    env: Mapping[str, str] | None = None,
    **modules: str | Path,
) -> str:
    """Write a program and modules beside it, run it, and return what it wrote; it must end by printing ``ok``.

    Arguments:
        folder: where it is written, and its working directory.
        script: its text, indented as one likes, or the file that it is copied from.
        address: of the Ray it joins; None: it starts its own.
        env: added to the environment.
        modules: the modules beside it, by name; likewise.
    """
    for name, module in {**modules, "script": script}.items():
        write(folder / f"{name}.py", module)
    environ = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environ |= {"PYTHONPATH": str(ROOT), **({"RAY_ADDRESS": address} if address else {}), **(env or {})}
    done = subprocess.run(
        [sys.executable, "script.py"], env=environ, capture_output=True, text=True, timeout=SECONDS, cwd=folder
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "ok" in done.stdout.split(), said
    return said
