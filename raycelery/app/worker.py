"""``celery worker`` in direct mode."""

from __future__ import annotations

from typing import Any

import click


def refuse(*args: Any, **kwargs: Any) -> Any:
    """Stand in for Celery's worker class where there is no worker to start.

    The exit status is 1: a deployment that goes on starting workers should hear of it, and one that saw 0 would take
    the worker to have ended well and start the next.

    Raises:
        click.ClickException: always.
    """
    raise click.ClickException(
        "there is no worker to start: in direct mode tasks run on Ray as they are called; "
        "set ray_mode='bridge' to have workers that take tasks from a broker"
    )
