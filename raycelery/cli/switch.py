"""``raycelery switch``: shows what is where while a project goes over to Ray, and which share of calls goes there."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from raycelery.cli.project import app_option, load, split, the_broker
from raycelery.errors import OptionError
from raycelery.terminal import output
from raycelery.terminal.group import Group
from raycelery.terminal.tables import Table, number
from raycelery.terminal.tables import name as named

queues_option = click.option("-Q", "--queues", help="Only these queues, with commas between.  [default: all that the "
                             "application consumes, routes to or names in a task]", callback=split)  # fmt: skip


@click.group("switch", cls=Group)
def command() -> None:
    """Show and steer how a project goes over to Ray."""


@command.command("status")
@app_option
@queues_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str, queues: list[str], as_json: bool) -> None:
    """Show what the application's broker still holds, and which shares are set live. Exit status 1 if it holds any."""
    out = output.own_stdout()
    app = load(name)
    from raycelery.switch import broker

    with the_broker(app) as found:
        left = found.left(broker.queues_of(app, queues))
        workers = found.consumers()
    shares = _shares(app).current() if app.conf.ray_mode == "mixed" else {}
    if as_json:
        said = {"left": [asdict(one) for one in left], "workers": workers, "shares": shares}
        click.echo(json.dumps(said, indent=2), file=out)
    else:
        table = Table("Left in the broker", ("queue", "ready>", "unacknowledged>", "delayed>"))
        for one in left:
            counts = [one.ready, one.unacked if found.keeps_unacked else None, one.delayed]
            table.add(named(one.queue), *(number("-" if count is None else f"{count:,}") for count in counts))
        console = output.console(out)
        console.print(table)
        if workers is not None:
            console.print(f"workers connected: {workers}", markup=False)
        for pattern, share in shares.items():
            console.print(f"{pattern}: {share:.0%} on Ray, set live", markup=False)
    sys.exit(1 if any(one.all for one in left) else 0)


def _percent(context: click.Context, parameter: click.Parameter, value: str) -> float | None:
    if value in ("back", "unset"):
        return 0.0 if value == "back" else None
    try:
        share = float(value.removesuffix("%")) / 100 if value.endswith("%") else float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is no share: give 0% to 100%, 'back' (0%), or 'unset'")
    return share


@command.command("set")
@app_option
@click.argument("pattern")
@click.argument("share", callback=_percent)
def set_share(name: str, pattern: str, share: float | None) -> None:
    """Set which SHARE of the calls of tasks goes to Ray, while the project runs.

    PATTERN names tasks, as 'forecasts.train_*'; of several that match, the longest counts. SHARE is 10%, or `back` for
    0%, or `unset` for what the configuration says. Every producer in mixed mode goes by it within seconds.
    """
    out = output.own_stdout()
    app = load(name)
    if app.conf.ray_mode != "mixed":
        raise click.UsageError(f"{name!r} is not in mixed mode: set ray_mode = 'mixed'")
    from raycelery.switch.sides import matching

    if share is not None and not any(matching({pattern: 1.0}, task) for task in app.tasks):
        raise click.UsageError(f"{pattern!r} matches none of the application's tasks")
    try:
        shares = _shares(app).write(pattern, share)
    except OptionError as exc:
        raise click.UsageError(str(exc)) from exc
    click.echo("\n".join(f"{one}: {part:.0%} on Ray" for one, part in shares.items()) or "none is set live", file=out)


def _shares(app: Any) -> Any:
    from raycelery.switch.shares import LiveShares

    return LiveShares(app)
