"""``raycelery beat``: runs the application's periodic tasks inside the cluster."""

from __future__ import annotations

import click

from raycelery.cli.project import app_option, connect, load
from raycelery.reasons import reason_of


@click.command("beat")
@app_option
@click.option("-S", "--scheduler", help="Scheduler class, as `celery beat` takes it.  [default: the application's]")
@click.option("-s", "--schedule", "filename", help="File for the schedule's state, on the node where beat runs.")
@click.option("-l", "--loglevel", default="INFO", show_default=True, help="Level of its log, one of Ray's logs.")
@click.option("--stop", "ending", is_flag=True, help="Stop the application's beat.")
def command(name: str, scheduler: str | None, filename: str | None, loglevel: str, ending: bool) -> None:
    """Run the application's schedule inside the cluster.

    This replaces a `celery beat` process. An application has one beat. Started again, for example after a change of the
    schedule, it replaces the running one.
    """
    app = load(name)
    session = connect(app)

    import ray

    from raycelery.control import beat

    if ending:
        if not beat.stop(session.name):
            raise click.ClickException(f"no beat of {session.name} runs in the cluster")
        click.echo(f"the beat of {session.name} has ended")
        return
    app.loader.import_default_modules()
    try:
        described = beat.start(app, scheduler, filename, loglevel.upper())
    except ray.exceptions.RayError as exc:
        raise click.ClickException(f"beat does not start: {reason_of(exc)}") from exc
    click.echo(f"beat of {session.name} runs on {described['node']}, pid {described['pid']}, {described['scheduler']}:")
    for entry, schedule in described["entries"].items():
        click.echo(f"  {entry}  {schedule}")
    if not described["entries"]:
        click.echo("  nothing is scheduled yet")
