"""``raycelery bench``: measure, report, compare."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from raycelery.terminal import output
from raycelery.terminal.group import Group

from . import measure, predict, systems, workloads
from .report import compare as comparison
from .report import document, terminal
from .work import QUEUES, USUAL, Settings

#: Workloads that are run unless others are named: a few minutes.
_DEFAULT = "noop,roundtrip,zones"


@click.group(cls=Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--workload", "names", default=None, help=f"Comma-separated, or 'all'.  [default: {_DEFAULT}]")
@click.option("--system", "wanted", default=",".join(USUAL), show_default=True, help="Comma-separated, or 'all'. The "
              "others are compared with the first.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default="number of CPUs",
              help="Workers per queue, and CPUs of Ray.")  # fmt: skip
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds of turns.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="bench-report", show_default=True,
              help="Folder for report.json and report.html.")  # fmt: skip
@click.option("--module", help="Module with your own tasks, for the workload 'own'.")
@click.option("--quick", is_flag=True, help="Small sizes, to see whether it works.")
@click.option("--list", "listing", is_flag=True, help="List workloads and systems, and exit.")
@click.pass_context
def command(
    ctx: click.Context, names: str | None, wanted: str, concurrency: int, repeat: int, out: Path, module: str | None,
    quick: bool, listing: bool,
) -> None:  # fmt: skip
    """Compare raycelery with Celery on this machine.

    Runs the same work on both (and on other systems), in turns. Starts and stops everything it needs. Exit codes: 0
    measured, 1 a system failed or results differ, 2 wrong use, 130 interrupted (workloads that were finished are
    reported).
    """
    if ctx.invoked_subcommand is not None:
        return
    if listing:
        _list()
        return
    chosen = _chosen(names or ("own" if module else _DEFAULT), workloads.NAMES, "workload")
    if names == "all" and not module:
        chosen.remove("own")
    taking = _chosen(wanted, tuple(systems.SYSTEMS), "system")
    _see_that_it_can_run(chosen, taking, module)
    settings = Settings(concurrency, quick, module)
    console = Console(stderr=True)
    files = output.folder(out, "--out", "report.json", "report.html")
    trials: list[measure.Trial] = []
    interrupted = False
    with _interrupt_on_terminate():
        try:
            for name in chosen:
                _measure(name, taking, settings, repeat, console, trials)
        except KeyboardInterrupt:
            interrupted = True
            console.print("[yellow]interrupted: workloads that were finished are reported[/]")
    report = document.document(
        trials, measure.machine(), "raycelery bench " + shlex.join(sys.argv[1:]).removeprefix("bench "),
        {**asdict(settings), "repeat": repeat},
    )  # fmt: skip
    _write(report, files)
    sys.exit(130 if interrupted else 1 if any(trial.problem for trial in trials) else 0)


@command.command("compare")
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--max-regression", default="20%", show_default=True, help="How much worse a figure may be.")
def compare(before: Path, after: Path, max_regression: str) -> None:
    """Show what changed between two reports.

    Exit code 1: a figure is worse by more than --max-regression and by more than its rounds differ. Figures that were
    measured together with the same base system are compared by their ratio to it.
    """
    try:
        most = float(max_regression.rstrip("%")) / 100
    except ValueError:
        raise click.UsageError(f"--max-regression {max_regression}: give a percentage such as 20%") from None
    try:
        found = comparison.changes(document.read(before), document.read(after))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not found:
        raise click.UsageError("the reports have no workload, system and figure in common")
    output.console().print(comparison.table(found, most))
    regressed = [change for change in found if change.regressed(most)]
    for change in regressed:
        click.echo(
            f"regression: {change.workload}, {change.system}, {change.title}: {change.before} to {change.after}",
            err=True,
        )
    sys.exit(1 if regressed else 0)


command.add_command(predict.command)


def _list() -> None:
    console = output.console()
    shown = Table("workload", "what it is", "systems", box=None)
    for name in workloads.NAMES:
        workload = workloads.load(name)
        shown.add_row(f"[bold]{name}[/]", workload.about, ", ".join(workload.systems))
    console.print(shown)
    shown = Table("system", "what it is", "installed", box=None)
    for name, (_, about, _) in systems.SYSTEMS.items():
        lacking = systems.missing(name)
        shown.add_row(f"[bold]{name}[/]", about, f"no: {', '.join(lacking)}" if lacking else "yes")
    console.print(shown)


def _chosen(text: str, known: tuple[str, ...], what: str) -> list[str]:
    if text == "all":
        return list(known)
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise click.UsageError(f"unknown {what} {', '.join(unknown) or repr(text)}: use {', '.join(known)}")
    return names


def _see_that_it_can_run(chosen: list[str], taking: list[str], module: str | None) -> None:
    lacking = sorted({package for name in taking for package in systems.missing(name)})
    lacking += [package for package in ("jinja2", "plotly") if importlib.util.find_spec(package) is None]
    if lacking:
        raise click.UsageError(f"{', '.join(lacking)} not installed: run pip install 'raycelery[bench]'")
    if "own" in chosen and module is None:
        raise click.UsageError("the workload 'own' needs --module, the name of a module that has calls(quick)")
    if any(name in (*QUEUES, "bridge") for name in taking):
        from .systems import redis

        try:
            redis.executable()
        except RuntimeError as error:
            raise click.UsageError(str(error)) from error


def _measure(
    name: str, taking: list[str], settings: Settings, repeat: int, console: Console, trials: list[measure.Trial]
) -> None:
    able = [system for system in taking if system in workloads.load(name).systems]
    if not able:
        console.print(f"[yellow]{name}: none of these systems can run it[/]")
        return
    with _Bars(console, name, repeat * len(able)) as bars:
        trial = measure.measure(name, able, settings, repeat, bars.turn)
    trials.append(trial)
    if trial.problem:
        console.print(f"[red]{name}[/]", escape(trial.problem), markup=True, highlight=False)
    else:
        shown = document.document([trial], {}, "", {})["trials"][0]
        output.console().print(terminal.table(shown))
        busy = document.busy(shown)
        if busy:
            console.print("[yellow]busy machine:[/]", escape(busy), highlight=False)


class _Bars:
    """Shows progress: two bars on a terminal, a line per turn elsewhere."""

    def __init__(self, console: Console, name: str, turns: int) -> None:
        self._console, self._name, self._turns, self._begun = console, name, turns, 0
        columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._all: TaskID = self._progress.add_task(name, total=turns)
        self._one: TaskID = self._progress.add_task("", total=None)

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._progress.stop()

    def turn(self, system: str, number: int) -> measure.Progress:
        """Show that a turn begins; return a function that is called with its progress."""
        self._progress.update(self._all, completed=self._begun)
        self._begun += 1
        if not self._console.is_terminal:
            click.echo(f"{self._name}: {system}, turn {self._begun} of {self._turns}", err=True)

        def show(phase: str, done: int, of: int) -> None:
            self._progress.update(self._one, description=f"  {system}: {phase}", completed=done, total=of)

        return show


@contextmanager
def _interrupt_on_terminate() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that everything is stopped first."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(report: dict[str, Any], files: list[output.Output]) -> None:
    from .report import page

    data, shown = files
    data.write(json.dumps(report))
    shown.write(page.render(report))
    click.echo(f"written: {data.path} and {shown.path}", err=True)
