"""``raycelery job``: looks at the runs that ``raycelery submit`` has started, and ends them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

import click

from raycelery.cli.specified import fail, placed
from raycelery.cli.submit import TIMED_OUT
from raycelery.launch.errors import LaunchError
from raycelery.launch.launching import find, runs
from raycelery.launch.run import Run
from raycelery.terminal.group import Group
from raycelery.terminal.output import own_stdout

_placed = placed("ray", "kuberay")


@click.group("job", cls=Group)
def command() -> None:
    """Look at runs of `raycelery submit`, from any machine that reaches the cluster.

    Exit status: 0 done, 1 the run has failed, 2 wrong use, 3 the cluster is out of reach, 4 it has not ended in time,
    5 there is no such run, 130 it was cancelled.
    """


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have errors end the command with their exit status."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except LaunchError as exc:
            fail(exc)

    return call


def _described(run: Run) -> dict[str, Any]:
    status = run.status()
    return {
        "name": run.name,
        "state": status.state.value,
        "started": status.started,
        "ended": status.ended,
        "message": status.message,
    }


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@command.command("list")
@_placed
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_told
def list_runs(place: dict[str, Any], as_json: bool) -> None:
    """List the runs of a cluster, the latest first."""
    out = own_stdout()
    found = [_described(run) for run in runs(**place)]
    if as_json:
        click.echo(json.dumps(found), file=out)
        return
    width = max((len(one["name"]) for one in found), default=0)
    for one in found:
        click.echo(f"{one['name']:<{width}}  {one['state']:<9}  {_time(one['started'])}", file=out)


@command.command("status")
@_placed
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("name")
@_told
def status(name: str, place: dict[str, Any], as_json: bool) -> None:
    """Tell how a run is."""
    out = own_stdout()
    one = _described(find(name, **place))
    if as_json:
        click.echo(json.dumps(one), file=out)
        return
    click.echo(f"{one['name']} {one['state']}{': ' + one['message'] if one['message'] else ''}", file=out)


@command.command("logs")
@_placed
@click.option("-f", "--follow", is_flag=True, help="Until it has ended.")
@click.argument("name")
@_told
def logs(name: str, place: dict[str, Any], follow: bool) -> None:
    """Show what a run has printed."""
    out = own_stdout()
    for piece in find(name, **place).logs(follow):
        out.write(piece)
        out.flush()


@command.command("wait")
@_placed
@click.option("--timeout", type=float, metavar="SECONDS", help="So long at most.")
@click.argument("name")
@_told
def wait(name: str, place: dict[str, Any], timeout: float | None) -> None:
    """Wait until a run has ended; the exit status tells how."""
    run = find(name, **place)
    try:
        found = run.wait(timeout)
    except TimeoutError as exc:
        click.echo(f"Error: {exc}", err=True)
        sys.exit(TIMED_OUT)
    click.echo(f"{run.name} {found.state.value}", err=True)
    sys.exit(found.exit_code)


@command.command("cancel")
@_placed
@click.argument("name")
@_told
def cancel(name: str, place: dict[str, Any]) -> None:
    """End a run: its program gets SIGTERM, and is killed if it goes on."""
    find(name, **place).cancel()


@command.command("delete")
@_placed
@click.argument("name")
@_told
def delete(name: str, place: dict[str, Any]) -> None:
    """Remove what is kept of a run; it is cancelled first if it runs."""
    find(name, **place).delete()
