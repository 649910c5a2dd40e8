"""``TestApp`` as in ``celery.contrib.testing.app``, making raycelery applications."""

from __future__ import annotations

from typing import Any

from celery.contrib.testing.app import DEFAULT_TEST_CONFIG, Trap, UnitLogging, set_trap, setup_default_app

from raycelery.app.application import Celery

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app"]


def TestApp(
    name: str | None = None,
    config: dict[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Celery:
    """Return an application for tests; the arguments are those of Celery's function of the same name."""
    from celery.contrib.testing import tasks  # noqa: F401  (registers celery.ping)

    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    app.add_defaults({**DEFAULT_TEST_CONFIG, **(config or {})})
    return app
