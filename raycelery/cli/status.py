"""``raycelery status``: shows the state of an application, once; :mod:`raycelery.cli.overview` has its tables."""

from __future__ import annotations

import json

import click

from raycelery.cli.project import app_option, connect, load
from raycelery.protocol import questions
from raycelery.terminal import output


@click.command("status")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--why", metavar="TASK_ID", help="Say why a task waits, or what has become of it, and nothing else.")
def command(name: str, as_json: bool, why: str | None) -> None:
    """Show the state of an application, once.

    Its nodes, queues, executors (the processes that run tasks), counts of tasks, failures and running tasks.
    """
    out = output.own_stdout()
    if why is not None:
        said = connect(load(name)).client.call(questions.Why(why))
        click.echo(json.dumps({"id": why, "why": said}) if as_json else said, file=out)
        return
    overview = connect(load(name)).client.call(questions.Overview())
    if as_json:
        click.echo(json.dumps(overview, indent=2, default=str), file=out)
        return
    from raycelery.cli.overview import View, render

    console = output.console(out)
    console.print(render(overview, view=View(width=console.width)))
