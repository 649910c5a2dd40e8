"""``raycelery top``: what an application does, live."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from raycelery.cli.output import own_stdout
from raycelery.cli.overview import render
from raycelery.cli.project import app_option, connect, load
from raycelery.errors import DispatcherUnreachable


@click.command("top")
@app_option
@click.option(
    "-n", "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between looks."
)
@click.option("--looks", type=click.IntRange(1), help="End after so many looks.")
def command(name: str, interval: float, looks: int | None) -> None:
    """Show what an application does, live; Ctrl-C ends it."""
    console = Console(file=own_stdout())
    app = load(name)
    connect(app)
    before: dict[str, Any] | None = None
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, screen=console.is_terminal, auto_refresh=False, transient=False) as live,
    ):
        while True:
            try:
                overview = app.client.call("overview")
            except DispatcherUnreachable as exc:
                raise click.ClickException(str(exc)) from exc
            live.update(render(overview, before, height=console.height if console.is_terminal else None), refresh=True)
            before = overview
            if looks is not None:
                looks -= 1
                if not looks:
                    return
            time.sleep(interval)
