"""A pytest plugin that runs Celery's integration suite on raycelery, without an edit of it.

Stands in for what a project does that swaps its import line: `from celery import Celery`, in the suite as in
`celery.contrib.testing`, gives raycelery's class. The suite's one embedded worker gives way to Ray; in bridge mode it
stays, and only its pool does.

Loaded with `-p`, before the suite's conftest; configured by environment variables that `run.py` sets:
`CONFORMANCE_BACKEND` (`ray`, `redis` for `ray_keep_result_backend`, or `bridge`), `CONFORMANCE_LIMIT` (seconds for each
of a test's setup, subtests, call and teardown) and `CONFORMANCE_EXCLUDED` (names of tests to leave out, one a line).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Generator, Iterator
from typing import Any

import celery.contrib.testing.app
import celery.contrib.testing.worker
import pytest

import raycelery
import raycelery.contrib.testing.app
import raycelery.contrib.testing.worker
from tests import support
from tests.conformance.verdict import covers

LIMIT = float(os.environ["CONFORMANCE_LIMIT"])
#: Name of the application in Celery's test helpers, and so of its dispatcher.
APP = "celery.tests"
KEEP_BACKEND = os.environ["CONFORMANCE_BACKEND"] == "redis"
#: Celery's worker stays, as a thread of this process, with the pool on Ray.
BRIDGE = os.environ["CONFORMANCE_BACKEND"] == "bridge"
_cluster = contextlib.ExitStack()


def make_app(name: str | None = None, config: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """`TestApp` with the mode's settings, for the suite's fixtures and for the tests that call it."""
    mode = {"ray_mode": "bridge"} if BRIDGE else {"ray_keep_result_backend": KEEP_BACKEND}
    settings = {**mode, **(config or {})}
    return raycelery.contrib.testing.app.TestApp(name or APP, settings, **kwargs)


class BridgeCelery(raycelery.Celery):
    """What the suite makes for itself, in bridge mode."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "changes": {"ray_mode": "bridge", **(options.get("changes") or {})}})


@contextlib.contextmanager
def start_worker(app: Any, **options: Any) -> Iterator[Any]:
    """`start_worker` of either mode; the suite's choice of prefork gives way to Ray, with the bridge's pool or none."""
    options["pool"] = "raycelery.bridge:Pool" if BRIDGE else "ray"
    with raycelery.contrib.testing.worker.start_worker(app, **options) as worker:
        yield worker


def pytest_configure(config: pytest.Config) -> None:
    # What the tests and celery.contrib.pytest look up by these names from here on.
    celery.Celery = BridgeCelery if BRIDGE else raycelery.Celery
    celery.contrib.testing.app.TestApp = make_app
    celery.contrib.testing.worker.start_worker = start_worker


def pytest_sessionstart(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        _cluster.enter_context(support.ray_cluster(num_cpus=2, log_to_driver=False))


def pytest_sessionfinish(session: pytest.Session) -> None:
    with limited("ending Ray"):
        _cluster.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    names = os.environ.get("CONFORMANCE_EXCLUDED", "").splitlines()
    excluded = [item for item in items if any(covers(name, item.nodeid) for name in names)]
    config.hook.pytest_deselected(items=excluded)
    items[:] = [item for item in items if item not in excluded]
    inspect = sys.modules.get("t.integration.test_inspect")
    if inspect is not None and not BRIDGE:
        # The tests name the worker after their own process, where it runs on Celery.
        inspect.NODENAME = f"celery@{socket.gethostname()}"  # type: ignore[attr-defined]


# The suite's own time limit is 300 s for a test, and its teardown may wait for ever for a task that hangs.


def arm(seconds: float) -> None:
    """Raise SIGALRM after so long, and every 5 s from then on, in case something swallows the failure; 0: never."""
    signal.setitimer(signal.ITIMER_REAL, seconds, 5 if seconds else 0)


@contextlib.contextmanager
def limited(what: str) -> Iterator[None]:
    """Fail what takes longer than `LIMIT`."""

    def expire(signum: int, frame: Any) -> None:
        pytest.fail(f"{what} took longer than {LIMIT:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    arm(LIMIT)
    try:
        yield
    finally:
        arm(0)
        signal.signal(signal.SIGALRM, before)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A few tests wait for minutes, in subtests of seconds: each subtest has the time anew.
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        arm(LIMIT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with limited("the test's setup"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with limited("the test"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with limited("the test's teardown"):
        return (yield)
