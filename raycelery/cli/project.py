"""The application that a command is about: ``-A``, as Celery's own command takes it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from raycelery.errors import RayCeleryError

if TYPE_CHECKING:
    from raycelery.app.application import Celery

app_option = click.option(
    "-A", "--app", "name", required=True, envvar="CELERY_APP", metavar="APP",
    help="The application, as `celery -A` takes it.",
)  # fmt: skip


def load(name: str) -> Celery:
    """Import the application.

    Raises:
        click.UsageError: there is none, it is not raycelery's, or it is in bridge mode.
    """
    from celery.app.utils import find_app

    from raycelery.app.application import Celery

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app = find_app(name)
    except (ImportError, AttributeError) as exc:
        raise click.UsageError(f"there is no application at {name!r}: {exc}") from exc
    if not isinstance(app, Celery) or not app.direct:
        raise click.UsageError(
            f"{name!r} has its tasks run by workers that take them from a broker: use Celery's own commands"
        )
    return app


def connect(app: Celery) -> Any:
    """Return the application's session with its dispatcher on a running cluster.

    Raises:
        click.UsageError: no cluster is named, or none answers.
    """
    if not (app.conf.ray_address or os.environ.get("RAY_ADDRESS")):
        raise click.UsageError("no cluster is named: set RAY_ADDRESS, or ray_address in the application's settings")
    # The command's own words are enough on a terminal.
    app.conf.ray_init = {"logging_level": "WARNING", "log_to_driver": False, **(app.conf.ray_init or {})}
    try:
        return app.session
    except RayCeleryError as exc:
        raise click.UsageError(str(exc)) from exc
