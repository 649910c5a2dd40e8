"""The option ``-A`` and the application that it names, as in Celery's own command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from raycelery import names
from raycelery.cluster import address, connecting, local
from raycelery.errors import OptionError, RayCeleryError
from raycelery.masking import masked

if TYPE_CHECKING:
    from raycelery.app.application import Celery

app_option = click.option(
    "-A", "--app", "name", required=True, envvar="CELERY_APP", metavar="APP",
    help="The application, as `celery -A` takes it.",
)  # fmt: skip


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        if value:
            address.check("--address", value)
    except OptionError as exc:
        raise click.UsageError(str(exc)) from exc
    return value


address_option = click.option(
    "--address", callback=_address,
    help="Ray cluster to use.  [default: ray_address, $RAY_ADDRESS, else a Ray of its own]",
)  # fmt: skip


def load(name: str) -> Celery:
    """Import an application.

    Arguments:
        name: value of ``-A``: a module, or ``module:attribute``.

    Raises:
        click.UsageError: it does not exist, is not an application of raycelery, or is in bridge mode.
    """
    from celery.app.utils import find_app

    from raycelery.app.application import Celery

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app = find_app(name)
    except (ImportError, AttributeError) as exc:
        raise click.UsageError(f"there is no application at {name!r}: {exc}") from exc
    if not isinstance(app, Celery) or app.conf.ray_mode == "bridge":
        raise click.UsageError(
            f"{name!r} is not in direct mode: Celery's workers run its tasks, so use Celery's own commands"
        )
    return app


def connect(app: Celery) -> Any:
    """Return the application's session with its dispatcher on a running cluster.

    If no cluster is named, it is the Ray that the user's program has started on this machine.

    Raises:
        click.UsageError: no cluster is named and there is not exactly one such program, or the cluster does not answer.
    """
    name = names.dispatcher_name(app)
    try:
        if connecting.named(app) is None:
            app.conf.ray_address = _local(name)
    except OptionError as exc:
        raise click.UsageError(str(exc)) from exc
    # The command reports errors itself.
    app.conf.ray_init = {"logging_level": "WARNING", "log_to_driver": False, **(app.conf.ray_init or {})}
    try:
        return app.session
    except RayCeleryError as exc:
        raise click.UsageError(str(exc)) from exc


def _local(name: str) -> str:
    found = local.find(name)
    if not found:
        raise click.UsageError(
            f"no program on this machine runs {name!r} on a Ray of its own, and {connecting.nothing_to_ask()}"
        )
    if len(found) > 1:
        raise click.UsageError(
            f"several programs run {name!r} here: set RAY_ADDRESS to one of {', '.join(str(one) for one in found)}"
        )
    click.echo(f"{name} at {found[0]}", err=True)
    return found[0].address


def split(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """Return the names of an option that takes several, with commas between."""
    return [one.strip() for one in (value or "").split(",") if one.strip()]


@contextlib.contextmanager
def the_broker(app: Celery) -> Iterator[Any]:
    """Connect with the broker that an application names.

    Raises:
        click.UsageError: it names none.
        click.ClickException: it does not answer.
    """
    from kombu.exceptions import OperationalError

    from raycelery.switch import broker

    try:
        with broker.opened(app) as found:
            yield found
    except OptionError as exc:
        raise click.UsageError(str(exc)) from exc
    except (OSError, OperationalError, ImportError) as exc:
        raise click.ClickException(f"the broker {masked(app.conf.broker_read_url)} does not answer: {exc}") from exc
