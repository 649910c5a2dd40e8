"""A pytest plugin that writes every test report to a file, one JSON object a line.

The runner counts from these lines rather than from pytest's summary: they survive a crash or a kill of the run, and
they name each test by its node id. The file's path comes from the environment variable `CONFORMANCE_REPORTS`.
"""

from __future__ import annotations

import json
import os
import signal
from types import FrameType

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    # A run that is ended early still tears down what its fixtures started. Set late: Ray has a handler of its own.
    def end(signum: int, frame: FrameType | None) -> None:
        pytest.exit("the run was ended", returncode=2)

    signal.signal(signal.SIGTERM, end)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    line = {
        "nodeid": report.nodeid,
        "when": report.when,
        "outcome": report.outcome,
        "xfail": hasattr(report, "wasxfail"),
        "duration": round(report.duration, 3),
        "reason": _last_line(report) if report.outcome != "passed" else "",
    }
    with open(os.environ["CONFORMANCE_REPORTS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _last_line(report: pytest.TestReport) -> str:
    """What went wrong, in one line: pytest's own short form where it has one."""
    if isinstance(report.longrepr, tuple):  # a skip: (path, line, reason)
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return text.strip().splitlines()[0][:300] if text.strip() else ""
