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

    # Celery's defaults name JSON only; the rest (in-memory broker and backend) gives way to Ray.
    defaults = {key: value for key, value in DEFAULT_TEST_CONFIG.items() if key != "accept_content"}
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    app.add_defaults({**defaults, **(config or {})})
    return app
