"""``raycelery switch``: shows what is where while a project goes over to Ray."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from raycelery.cli.project import app_option, load, split, the_broker
from raycelery.terminal import output
from raycelery.terminal.group import Group
from raycelery.terminal.tables import Table, number
from raycelery.terminal.tables import name as named

queues_option = click.option("-Q", "--queues", help="Only these queues, with commas between.  [default: all that the "
                             "application consumes, routes to or names in a task]", callback=split)  # fmt: skip


@click.group("switch", cls=Group)
def command() -> None:
    """Show how a project goes over to Ray."""


@command.command("status")
@app_option
@queues_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str, queues: list[str], as_json: bool) -> None:
    """Show what the application's broker still holds. Exit status 1 if it holds anything."""
    out = output.own_stdout()
    app = load(name)
    from raycelery.switch import broker

    with the_broker(app) as found:
        left = found.left(broker.queues_of(app, queues))
        workers = found.consumers()
    if as_json:
        click.echo(json.dumps({"left": [asdict(one) for one in left], "workers": workers}, indent=2), file=out)
    else:
        table = Table("Left in the broker", ("queue", "ready>", "unacknowledged>", "delayed>"))
        for one in left:
            counts = [one.ready, one.unacked if found.keeps_unacked else None, one.delayed]
            table.add(named(one.queue), *(number("-" if count is None else f"{count:,}") for count in counts))
        console = output.console(out)
        console.print(table)
        if workers is not None:
            console.print(f"workers connected: {workers}", markup=False)
    sys.exit(1 if any(one.all for one in left) else 0)
