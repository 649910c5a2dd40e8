"""``raycelery top``: shows the state of an application, live."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from raycelery.cli.overview import ORDERS, View, render
from raycelery.cli.project import app_option, connect, load
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import questions
from raycelery.terminal import output


class _Screen:
    """What is shown, and how keys change it.

    Arguments:
        width, height: size of the terminal in characters; height is None without a terminal.
    """

    def __init__(self, width: int, height: int | None) -> None:
        self.view = View(None if height is None else height - 1, width)
        #: Whether letters are added to the filter.
        self._typing = False

    def press(self, key: str) -> bool:
        """Handle a key; return whether to continue."""
        if self._typing:
            if key in ("\r", "\n"):
                self._typing = False
            elif key == "\x1b":
                self._typing = False
                self.view = replace(self.view, pattern="")
            elif key in ("\x7f", "\b"):
                self.view = replace(self.view, pattern=self.view.pattern[:-1])
            elif key.isprintable():
                self.view = replace(self.view, pattern=self.view.pattern + key)
        elif key == "s":
            orders = list(ORDERS)
            self.view = replace(self.view, order=orders[(orders.index(self.view.order) + 1) % len(orders)])
        elif key == "/":
            self._typing = True
            self.view = replace(self.view, pattern="")
        elif key == "\x1b":
            self.view = replace(self.view, pattern="")
        return self._typing or key != "q"

    def render(self, overview: Any, before: Any) -> RenderableType:
        shown = render(overview, before, self.view)
        if self.view.height is None:
            return shown
        pattern = f"{self.view.pattern}{'_' if self._typing else ''}"
        keys = f"q quit  s sort: {self.view.order}  / filter{': ' + pattern if pattern else ''}"
        return Group(shown, Text(keys, "dim", no_wrap=True, overflow="ellipsis"))


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Yield a function that waits some seconds for a key and returns it, or None; always None without a terminal."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    pressed: deque[str] = deque()

    def wait(seconds: float) -> str | None:
        if not pressed and select.select([file], [], [], seconds)[0]:
            read = os.read(file, 256).decode(errors="replace")
            # Arrow keys and the like are sequences that begin with Escape; they are ignored.
            pressed.extend([] if read.startswith("\x1b") and len(read) > 1 else read)
        return pressed.popleft() if pressed else None

    tty.setcbreak(file)
    try:
        yield wait
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


@click.command("top")
@app_option
@click.option(
    "-n", "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between updates."
)
@click.option("--looks", type=click.IntRange(1), help="End after so many updates.")
def command(name: str, interval: float, looks: int | None) -> None:
    """Show the state of an application, live.

    Keys: q or Ctrl-C ends it; s changes how running tasks are sorted; / filters by what you type (in names, arguments
    and errors) and Enter ends typing; Escape shows everything again.
    """
    console = output.console(output.own_stdout())
    app = load(name)
    connect(app)
    screen = _Screen(console.width, console.height if console.is_terminal else None)
    before: dict[str, Any] | None = None
    with (
        contextlib.suppress(KeyboardInterrupt),
        _keys() as wait,
        Live(console=console, screen=console.is_terminal, auto_refresh=False, transient=False) as live,
    ):
        while True:
            try:
                overview = app.client.call(questions.Overview())
            except DispatcherUnreachable as exc:
                raise click.ClickException(str(exc)) from exc
            screen.view = replace(screen.view, width=console.width)
            if console.is_terminal:
                screen.view = replace(screen.view, height=console.height - 1)
            live.update(screen.render(overview, before), refresh=True)
            if looks is not None:
                looks -= 1
                if not looks:
                    return
            due = time.monotonic() + interval
            while (left := due - time.monotonic()) > 0:
                key = wait(left)
                if key is not None:
                    if not screen.press(key):
                        return
                    live.update(screen.render(overview, before), refresh=True)
            before = overview
