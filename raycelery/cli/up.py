"""``raycelery up``: starts a cluster on this machine that stays between runs."""

from __future__ import annotations

import click

from raycelery.errors import DispatcherUnreachable
from raycelery.terminal.output import own_stdout


@click.command("up")
@click.option("--num-cpus", type=click.IntRange(min=0), help="CPUs that the cluster offers.  [default: the machine's]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of its head node.  [default: a free port]")
def command(num_cpus: int | None, port: int | None) -> None:
    """Start a Ray cluster on this machine.

    It runs until `raycelery down`; its address is printed. Programs use it if RAY_ADDRESS names it:
    RAY_ADDRESS=$(raycelery up) && export RAY_ADDRESS. If such a cluster is running already, its address is printed.
    """
    from raycelery.cluster import kept

    out = own_stdout()
    found = kept.find()
    if found is not None:
        click.echo("a cluster is already running; 'raycelery down' ends it", err=True)
    else:
        click.echo("starting a Ray cluster ...", err=True)
        try:
            found = kept.start(num_cpus, port)
        except DispatcherUnreachable as exc:
            raise click.ClickException(str(exc)) from exc
        click.echo("it runs until 'raycelery down'; to use it, set RAY_ADDRESS to this address:", err=True)
    click.echo(found.address, file=out)
