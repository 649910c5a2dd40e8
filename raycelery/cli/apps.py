"""``raycelery apps``: lists the applications of a cluster, and ends them."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from raycelery.cli.overview import size, span
from raycelery.errors import DispatcherUnreachable, OptionError
from raycelery.protocol import questions
from raycelery.terminal import output
from raycelery.terminal.tables import Table, name, number


@click.command("apps")
@click.option("--address", help="Ray cluster to look at.  [default: $RAY_ADDRESS, else the only one on this machine]")
@click.option("--end", "ending", metavar="NAME", multiple=True, help="End this application: its dispatcher, its "
              "executors and its beat. May be given several times.")  # fmt: skip
@click.option("--force", is_flag=True, help="With --end: also if tasks are unfinished; they are lost.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(address: str | None, ending: tuple[str, ...], force: bool, as_json: bool) -> None:
    """List the applications of a cluster, or end some.

    Applications with and without a broker are listed. Each has a dispatcher, which keeps its queues and results and
    goes on after the programs that use it.
    """
    out = output.own_stdout()
    _connect(address)
    from raycelery.control import applications

    known = applications.names()
    unknown = [one for one in ending if one not in known]
    if unknown:
        raise click.UsageError(
            f"there is no application {', '.join(map(repr, unknown))} here; known: {', '.join(known) or 'none'}"
        )
    found = {one: _asked(one) for one in ending or known}
    if ending:
        _end(found, force)
    elif as_json:
        click.echo(json.dumps(found, indent=2, default=str), file=out)
    else:
        _show(found, output.console(out))


def _connect(address: str | None) -> None:
    from raycelery.app.application import Celery
    from raycelery.cluster import connecting, local

    app = Celery("raycelery apps", set_as_current=False)
    app.conf.ray_init = {"logging_level": "WARNING", "log_to_driver": False}
    app.conf.ray_address = address
    try:
        if connecting.named(app) is None:
            running = list(local.running())
            if len(running) != 1:
                raise click.UsageError(f"{connecting.nothing_to_ask()}, or give --address")
            app.conf.ray_address = running[0].address
        connecting.connect(app)
    except (DispatcherUnreachable, OptionError) as exc:
        raise click.UsageError(str(exc)) from exc


def _asked(application: str) -> dict[str, Any]:
    from raycelery.control import applications, beat

    try:
        stats = applications.ask(application, questions.Stats())
    except DispatcherUnreachable as exc:
        return {"error": str(exc)}
    left = ("log", "executor_pids")
    return {
        **{key: value for key, value in stats.items() if key not in left},
        "executors": len(stats["executor_pids"]),
        "beat": beat.running(application) is not None,
    }


def _show(found: dict[str, dict[str, Any]], console: Any) -> None:
    if not found:
        console.print("no application has a dispatcher here", markup=False)
        return
    now = time.time()
    table = Table("", ("application", "unfinished>", "running>", "executors>", "clients>", "up>", "memory>", "beat"))
    for application, one in found.items():
        if "error" in one:
            table.add(name(application), *(number("-") for _ in range(6)), name(one["error"], "red"))
            continue
        table.add(
            name(application),
            number(f"{one['pending']:,}"),
            number(f"{one['running']:,}"),
            number(f"{one['executors']:,}"),
            number(f"{one['clients']:,}"),
            number(span(now - one["since"])),
            number(size(one["rss"])),
            number("yes" if one["beat"] else "no"),
        )
    console.print(table)


def _end(found: dict[str, dict[str, Any]], force: bool) -> None:
    from raycelery.control import applications

    if not force:
        for application, one in found.items():
            if "error" in one:
                raise click.ClickException(f"{application} is not ended: {one['error']}; --force ends it anyway")
            if one["pending"]:
                left = f"{one['pending']:,} of its messages are not finished"
                raise click.ClickException(f"{application} is not ended: {left}; --force drops them")
    for application in found:
        try:
            applications.end(application)
        except DispatcherUnreachable as exc:
            click.echo(f"{application} did not answer ({exc}): its journal is left", err=True)
        click.echo(f"{application} has ended", err=True)
