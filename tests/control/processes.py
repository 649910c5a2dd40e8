"""Commands as a user types them, on the Ray of the test session."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import ROOT, RaySession, stop

APP = "tests.control.shop"


def environment(session: RaySession, env: Mapping[str, str] | None = None) -> dict[str, str]:
    # readline, in the process that starts those of the tests, exports the size of a terminal that is not this one.
    ours = {key: value for key, value in os.environ.items() if key not in ("LINES", "COLUMNS")}
    return {
        **ours,
        "RAY_ADDRESS": session.address,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        **(env or {}),
    }


def command(session: RaySession, program: str, *arguments: str, app: str = APP, status: int = 0) -> str:
    """Run ``celery -A APP ...`` or ``raycelery ... -A APP`` to its end; return what it wrote."""
    line = [sys.executable, "-m", program]
    line += ["-A", app, *arguments] if program == "celery" else [arguments[0], "-A", app, *arguments[1:]]
    done = subprocess.run(
        line, cwd=ROOT, env=environment(session), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if status == 0 else done.stdout + done.stderr


@contextlib.contextmanager
def running(
    session: RaySession,
    folder: Path,
    *line: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Iterator[Path]:
    """Run ``python -m ...`` meanwhile; yields the file that it writes to."""
    output = folder / f"{line[0]}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *line], cwd=cwd, env=environment(session, env), stdout=file,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield output
        finally:
            stop(process, 10)
