"""``raycelery bench predict``: checks right-sizing: predicts a workload from a sample, runs it, and compares."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

import click
import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raycelery.executor.profiling.sample import Sample
from raycelery.rightsize import recommending, report
from raycelery.rightsize.predicting import Hosts, Prediction
from raycelery.rightsize.recommending import Size
from raycelery.terminal import output

from . import figures, measure
from .work import Settings

#: Share of the memory that Ray gives to tasks; the rest is for its object store.
_FOR_TASKS = 0.7


@dataclass(frozen=True)
class Checked:
    """A prediction, and what was measured.

    Arguments:
        workload: its name.
        sizes: what was recommended for its tasks.
        tasks: how many there were.
        predicted: for otherwise idle hosts.
        left: for the CPUs that other programs left free; None if they used none.
        makespan: measured seconds.
        utilisation: share of the CPU time that all processes of raycelery used.
        of_tasks: share of the CPU time that the tasks themselves used.
        others: share of the machine's CPU time that other programs used.
    """

    workload: str
    sizes: list[Size]
    tasks: int
    predicted: Prediction
    left: Prediction | None
    makespan: float
    utilisation: float
    of_tasks: float
    others: float

    @property
    def fair(self) -> Prediction:
        """The prediction for the CPUs that were available."""
        return self.left or self.predicted

    @property
    def off(self) -> tuple[float, float]:
        """Relative errors of the predicted makespan and utilisation."""
        return self.fair.makespan / self.makespan - 1, self.fair.utilisation / self.utilisation - 1


def check(workload: str, settings: Settings, sample: int, progress: Any) -> Checked:
    """Predict the whole of a workload from a sample, and run it.

    Arguments:
        workload: its name; its tasks must be of one kind.
        settings: settings of the whole workload.
        sample: calls that the prediction is made of, run with one CPU each.
        progress: called with a line of text for each step.

    Raises:
        bench.measure.TurnError: a turn failed.
    """
    progress(f"{workload}: a sample of {sample}")
    small = replace(settings, sample=sample, num_cpus=1.0, memory=None)
    turn = measure.take_turn(workload, "raycelery", small, lambda *_: None)
    samples = [Sample(**one) for one in turn["samples"]]
    hosts = Hosts(1, settings.concurrency, _FOR_TASKS * psutil.virtual_memory().total)
    by_task: dict[str, list[Sample]] = {}
    for one in samples:
        by_task.setdefault(one.task, []).append(one)
    if len(by_task) != 1:
        raise measure.TurnError(f"{len(by_task)} kinds of tasks were measured; a workload of one kind can be predicted")
    task, total = samples[0].task, turn["total"]
    size = recommending.recommend(samples, hosts)
    requests = {task: (size.num_cpus, size.memory)}
    good = {task: recommending.usable(samples)}
    predicted = report.predict(good, {task: total}, requests, hosts)
    progress(f"{workload}: all {total}, with num_cpus={size.num_cpus:g} and {size.memory / 1e6:.0f} MB")
    whole = replace(settings, num_cpus=size.num_cpus, memory=size.memory)
    turn = measure.take_turn(workload, "raycelery", whole, lambda *_: None)
    usage = turn["usage"]
    span = usage["time"][-1] - usage["time"][0]
    others = (figures.others(turn) or 0.0) / 100
    free = min(float(settings.concurrency), turn["cpus"] * (1 - others))
    left = None
    if free < settings.concurrency:
        rest = replace(hosts, cpus=free, slots=size.per_host)
        left = report.predict(good, {task: total}, requests, rest)
        left = replace(left, utilisation=left.utilisation * free / settings.concurrency)
    makespan = figures.makespan(turn)
    return Checked(
        workload=workload,
        sizes=[size],
        tasks=total,
        predicted=predicted,
        left=left,
        makespan=makespan,
        utilisation=usage["cpu"][-1] / (span * settings.concurrency),
        of_tasks=sum(used or 0.0 for used in turn["calls"]["cpu"]) / (makespan * settings.concurrency),
        others=others,
    )


@click.command("predict")
@click.option("--workload", "names", default="zones,warehouse", show_default=True, help="Comma-separated.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=50, show_default=True, help="How many calls to predict from."
)
@click.option("--concurrency", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default="number of CPUs",
              help="CPUs of Ray.")  # fmt: skip
@click.option("--within", default=20.0, show_default=True, help="Percent by which a prediction may be wrong.")
@click.option("--quick", is_flag=True, help="Small sizes, to see whether it works.")
def command(names: str, sample: int, concurrency: int, within: float, quick: bool) -> None:
    """Check the predictions of right-sizing.

    Measures a sample with one CPU per task, as `raycelery rightsize` does, predicts the whole workload, runs it with
    what is recommended, and compares. If other programs used CPUs meanwhile, the prediction for the remaining CPUs is
    judged. Exit codes: 0 right, 1 wrong by more than --within, 2 wrong use.
    """
    console = Console(stderr=True)
    found = []
    for name in names.split(","):
        try:
            settings = Settings(concurrency, quick)
            found.append(check(name.strip(), settings, sample, lambda text: click.echo(text, err=True)))
        except measure.TurnError as error:
            console.print(f"[red]{escape(name)}[/]", escape(str(error)), markup=True, highlight=False)
            sys.exit(1)
    output.console().print(table(found))
    sys.exit(1 if any(abs(share) * 100 > within for one in found for share in one.off) else 0)


def table(found: list[Checked]) -> Table:
    """Return a table of predictions and measurements."""
    shown = Table()
    for column in ("", "predicted", "on the rest", "measured", "off"):
        shown.add_column(column, justify="right" if column else "left")
    for one in found:
        left = (f"{one.left.makespan:.1f} s", f"{one.left.utilisation:.0%}") if one.left else ("", "")
        time, use = one.off
        requests = ", ".join(f"{size.num_cpus:g} CPU and {size.memory / 1e6:.0f} MB" for size in one.sizes)
        shown.add_row(f"[bold]{one.workload}[/], {one.tasks} tasks, {requests}")
        shown.add_row("makespan", f"{one.predicted.makespan:.1f} s", left[0], f"{one.makespan:.1f} s", f"{time:+.0%}")
        used = f"{one.utilisation:.0%}"
        shown.add_row("CPU utilisation", f"{one.predicted.utilisation:.0%}", left[1], used, f"{use:+.0%}")
        shown.add_row("of it by tasks", "", "", f"{one.of_tasks:.0%}", "")
        shown.add_row("CPU used by others", "", "", f"{one.others:.0%}", "", end_section=True)
    return shown
