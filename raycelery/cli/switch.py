"""``raycelery switch``: shows what is where while a project goes over to Ray, and which share of calls goes there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from raycelery.cli.project import app_option, connect, load, split, the_broker
from raycelery.errors import OptionError, RayCeleryError
from raycelery.protocol import questions
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
    """Show what the application's broker still holds, what waits on Ray, and which share of calls goes there.

    Exit status 1 if the broker holds anything.
    """
    out = output.own_stdout()
    app = load(name)
    from raycelery.switch import broker

    with the_broker(app) as found:
        left = found.left(broker.queues_of(app, queues))
        workers = found.consumers()
    ray = _on_ray(app)
    shares = _shares_of(app) if app.conf.ray_mode == "mixed" else {}
    if as_json:
        said = {"left": [asdict(one) for one in left], "workers": workers, "ray": ray, "shares": shares}
        click.echo(json.dumps(said, indent=2), file=out)
        sys.exit(1 if any(one.all for one in left) else 0)
    table = Table("Left in the broker", ("queue", "ready>", "unacknowledged>", "delayed>"))
    for one in left:
        counts = [one.ready, one.unacked if found.keeps_unacked else None, one.delayed]
        table.add(named(one.queue), *(number("-" if count is None else f"{count:,}") for count in counts))
    console = output.console(out)
    console.print(table)
    if workers is not None:
        console.print(f"workers connected: {workers}", markup=False)
    if "error" in ray:
        console.print(f"Ray: {ray['error']}", markup=False)
    else:
        console.print(
            f"on Ray: {ray['waiting']:,} waiting, {ray['scheduled']:,} due later, {ray['running']:,} running",
            markup=False,
        )
    outcomes: dict[str, dict[str, int]] = ray.get("outcomes", {})
    names = sorted({*shares, *outcomes})
    if names:
        table = Table("Tasks", ("task", "share on Ray>", "ended there>", "failed>"))
        for task in names:
            ended = outcomes.get(task, {})
            counted = sum(ended.values()), ended.get("failed", 0)
            table.add(named(task), number(shares.get(task, "-")), *(number(f"{count:,}") for count in counted))
        console.print(table)
    sys.exit(1 if any(one.all for one in left) else 0)


def _on_ray(app: Any) -> dict[str, Any]:
    """Return what waits and what has ended on Ray, or why that is not known."""
    try:
        stats = connect(app).client.call(questions.Stats())
    except (click.UsageError, RayCeleryError) as exc:
        return {"error": str(exc)}
    found = {key: stats[key] for key in ("scheduled", "running", "outcomes")}
    return {"waiting": sum(stats["waiting"].values()), **found}


def _shares_of(app: Any) -> dict[str, str]:
    """Return the share of each of the application's tasks, and where it is from."""
    from raycelery.switch.sides import matching

    live, chosen = _shares(app).current(), app.conf.ray_share
    found = {}
    for task in app.tasks:
        if task.startswith("celery."):
            continue
        share = matching(live, task)
        if share is not None:
            found[task] = f"{share:.0%}, set live"
        elif callable(chosen) or isinstance(chosen, str):
            found[task] = "by a function"
        else:
            found[task] = f"{(matching(chosen, task) or 0) if isinstance(chosen, Mapping) else chosen:.0%}"
    return found


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
