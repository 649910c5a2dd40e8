"""``raycelery down``: ends the cluster that ``raycelery up`` started."""

from __future__ import annotations

import click


@click.command("down")
def command() -> None:
    """End the cluster that `raycelery up` started.

    All tasks that run or wait in it are lost.
    """
    from raycelery.cluster import kept

    found = kept.find()
    if found is None:
        raise click.ClickException("no cluster of 'raycelery up' runs on this machine")
    kept.stop(found)
    click.echo(f"the cluster at {found.address} has ended")
