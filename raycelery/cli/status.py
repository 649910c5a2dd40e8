"""``raycelery status``: shows the state of an application, once."""

from __future__ import annotations

import json

import click

from raycelery.cli.project import app_option, connect, load
from raycelery.terminal import output


@click.command("status")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> None:
    """Show the state of an application, once.

    Its nodes, queues, executors (the processes that run tasks), counts of tasks, failures and running tasks.
    """
    out = output.own_stdout()
    overview = connect(load(name)).client.call("overview")
    if as_json:
        click.echo(json.dumps(overview, indent=2, default=str), file=out)
        return
    from raycelery.cli.overview import View, render

    console = output.console(out)
    console.print(render(overview, view=View(width=console.width)))
