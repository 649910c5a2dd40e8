"""``raycelery status``: what an application does just now, once."""

from __future__ import annotations

import json

import click
from rich.console import Console

from raycelery.cli.output import own_stdout
from raycelery.cli.project import app_option, connect, load


@click.command("status")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Plain data on stdout.")
def command(name: str, as_json: bool) -> None:
    """Say what an application does just now: nodes, queues, lanes, running tasks."""
    out = own_stdout()
    overview = connect(load(name)).client.call("overview")
    if as_json:
        click.echo(json.dumps(overview, indent=2, default=str), file=out)
        return
    from raycelery.cli.overview import render

    Console(file=out).print(render(overview))
