"""``raycelery rightsize``: measures what a project's tasks use, and recommends what they should ask for."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from raycelery.cli import project
from raycelery.errors import RayCeleryError
from raycelery.rightsize.recommending import ENOUGH_RUNS
from raycelery.terminal.output import Output, own_stdout
from raycelery.terminal.output import console as console_of

if TYPE_CHECKING:
    from raycelery.executor.profiling.sample import Sample

#: Default share of a host's memory that Ray gives to tasks; the rest is for its object store.
_FOR_TASKS = 0.7
#: Bytes of memory per CPU of common cloud hosts.
_PER_CPU = 4e9
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    name = "bytes"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        found = re.fullmatch(r"([0-9.]+)\s*([kmgt]?i?)b?", str(value).strip().lower())
        try:
            return float(found[1]) * _UNITS[found[2]]  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            self.fail(f"{value!r}: give an amount such as 64GB")


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[float]:
        try:
            found = sorted({float(part) for part in str(value).split(",")})
        except ValueError:
            found = []
        if not found or found[0] <= 0:
            self.fail(f"{value!r}: give numbers of CPUs such as 1,2,4")
        return found


@dataclass
class _Gathered:
    """The samples of a run of the command.

    Arguments:
        samples: by the CPUs that calls asked for; the key None is for what the project says.
        totals: number of all calls of each task, of which a sample was made.
        share: ratio of all calls to the ones that were made.
        problems: what went wrong, a sentence each.
        interrupted: whether the user interrupted it.
    """

    samples: dict[float | None, list[Sample]]
    totals: dict[str, int]
    share: float
    problems: list[str]
    interrupted: bool = False


@click.command("rightsize")
@project.app_option
@click.option("--calls", "source", metavar="MODULE:FUNCTION", help="A function of the project that returns the calls "
              "to measure: signatures, or tuples (task, args, kwargs).")  # fmt: skip
@click.option(
    "--script", metavar="COMMAND", help="A script of the project to run, with its arguments: 'train.py -n 9'."
)
@click.option("--watch", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Make no calls; for so long, measure what the application runs on its cluster.")  # fmt: skip
@click.option("--sample", type=click.IntRange(min=1), default=50, show_default=True,
              help="How many calls of each task to make.")  # fmt: skip
@click.option("--scale", type=_Numbers(), metavar="1,2,4", help="Repeat the calls with each of these num_cpus.")
@click.option("--hosts", type=click.IntRange(min=1), default=1, show_default=True, help="Hosts to predict for.")
@click.option("--cpus", type=click.FloatRange(min=0, min_open=True), default=16, show_default=True,
              help="CPUs of each host.")  # fmt: skip
@click.option("--memory", type=_Bytes(), help="Memory of each host.  [default: 4GB per CPU]")
@click.option("--workers", type=click.IntRange(min=1), help="Celery's worker processes per host today, to compare "
              "with.  [default: what the tasks ask for today]")  # fmt: skip
@click.option("--total", type=click.IntRange(min=1), help="Number of tasks to predict for.  [default: as many as "
              "--calls returns, or as were measured]")  # fmt: skip
@click.option("--batches", type=click.IntRange(min=1), help="Number of chords to predict for: each runs its callback "
              "once.  [default: as many as --calls returns, or as were measured]")  # fmt: skip
@click.option("--min-runs", "least", type=click.IntRange(min=1), default=ENOUGH_RUNS, show_default=True,
              help="Recommend nothing for a task with fewer successful runs.")  # fmt: skip
@project.address_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the recommendations to this file, for `raycelery-migrate shim --annotate`.")  # fmt: skip
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the report to this file as an HTML page, with a plot of the runs.")  # fmt: skip
def command(
    name: str, source: str | None, script: str | None, watch: float | None, sample: int, scale: list[float] | None,
    hosts: int, cpus: float, memory: float | None, workers: int | None, total: int | None, batches: int | None,
    least: int, address: str | None, as_json: bool, output: Path | None, page: Path | None,
) -> None:  # fmt: skip
    """Measure tasks, and recommend what they should ask for.

    Runs a sample of the project's real tasks (--calls or --script), or watches what a live application runs (--watch).
    By default the calls come from the function `calls` in the application's module. Exit codes: 0 done, 1 a run failed
    or too little was measured, 2 wrong use, 130 interrupted (what was measured is reported).
    """
    from raycelery.rightsize import gathering
    from raycelery.rightsize import report as reporting
    from raycelery.rightsize.predicting import Hosts
    from raycelery.rightsize.rendering import render

    if sum(option is not None for option in (source, script, watch)) > 1:
        raise click.UsageError("give only one of --calls, --script and --watch")
    if scale and (script or watch):
        raise click.UsageError("--scale makes the same calls with several num_cpus: it needs --calls")
    requests = None if output is None else Output(output, "--output")
    html = None if page is None else _page(page)
    where = Hosts(hosts, cpus, _FOR_TASKS * (memory or _PER_CPU * cpus))
    out, console = own_stdout(), Console(stderr=True)
    try:
        app = project.load(name)
    except click.UsageError as exc:
        remedy = "; to be measured, it must run on Ray: 'raycelery-migrate shim --write' swaps its import"
        raise click.UsageError(exc.message + (remedy if "workers" in exc.message else "")) from exc
    if address:
        app.conf.ray_address = address
    gathered = _gather(app, name, source, script, watch, sample, scale, console)
    if gathered.problems:
        more = f" (and {len(gathered.problems) - 1} more)" if len(gathered.problems) > 1 else ""
        console.print("[yellow]problem:[/]", escape(gathered.problems[0]) + more, highlight=False)
    if not gathered.samples:
        console.print("[red]nothing was measured[/]")
        sys.exit(130 if gathered.interrupted else 1)
    base = next(iter(gathered.samples.values()))
    totals = reporting.wholes(base, gathered.totals, gathered.share, total, batches)
    # With --scale the samples have other requests than the project's.
    asked = {task: gathering.asked(app, task) for task in totals} if scale else None
    report = reporting.analyse(gathered.samples, where, totals, workers, asked, least)
    workers_a_host = f"{workers} Celery worker process{'es' if workers and workers > 1 else ''} a host"
    present = workers_a_host if workers else "what tasks ask for"
    if as_json:
        click.echo(json.dumps(reporting.as_json(report), indent=2), file=out)
    else:
        console_of(out).print(render(report, present))
    if html is not None:
        from raycelery.rightsize.page import render as as_page

        html.write(as_page(report, gathered.samples, present, f"raycelery rightsize {shlex.join(sys.argv[2:])}"))
    short = not report.annotations
    if requests is not None and short:
        told = f"[yellow]nothing is written to {escape(str(output))}:[/] of no task {least} runs succeeded"
        console.print(told, highlight=False)
    elif requests is not None:
        requests.write(json.dumps(report.annotations, indent=2) + "\n")
    failed = gathered.problems or report.failed or (short and requests is not None)
    sys.exit(130 if gathered.interrupted else 1 if failed else 0)


def _page(path: Path) -> Output:
    missing = [package for package in ("jinja2", "plotly") if importlib.util.find_spec(package) is None]
    if missing:
        raise click.UsageError(f"--html needs {', '.join(missing)}: run pip install 'raycelery[bench]'")
    return Output(path, "--html")


def _gather(
    app: Any, name: str, source: str | None, script: str | None, watch: float | None, sample: int,
    scale: Sequence[float | None] | None, console: Console,
) -> _Gathered:  # fmt: skip
    from raycelery.executor.profiling import canvas
    from raycelery.rightsize import calls, gathering

    logging.getLogger("raycelery").setLevel(logging.WARNING)
    gatherer = gathering.Gatherer(app, _Progress(console))
    result = _Gathered({}, {}, 1.0, gatherer.errors)
    if watch:
        session = project.connect(app)
        try:
            gatherer.watch(watch)
        except KeyboardInterrupt:
            result.interrupted = True
        session.client.close()
        if gatherer.samples:
            result.samples[None] = gatherer.samples
        return result
    chosen = []
    if not script:
        try:
            everything = calls.load(source or f"{_module(app, name)}:calls", app)
        except RayCeleryError as exc:
            hint = (
                "" if source else "; name a function with --calls, a script with --script, or --watch the application"
            )
            raise click.UsageError(f"{exc}{hint}") from exc
        chosen = calls.spread(everything, sample)
        result.totals = dict(sum((canvas.tasks_in(one) for one in everything), Counter[str]()))
        result.share = len(everything) / len(chosen)
        chosen = [calls.cut(one, sample) for one in chosen]
    app.conf.ray_init = {"logging_level": "WARNING", "log_to_driver": False, **(app.conf.ray_init or {})}
    try:
        with gathering.alone(app):
            if scale:
                _see_that_it_fits(scale)
            try:
                if script:
                    status = gatherer.script(script)
                    if status:
                        result.problems.append(f"{script} ended with status {status}")
                else:
                    for cpus in scale or [None]:
                        gatherer.calls(chosen, cpus)
            except KeyboardInterrupt:
                result.interrupted = True
            for one in gatherer.samples:
                result.samples.setdefault(one.num_cpus if scale else None, []).append(one)
    except RayCeleryError as exc:
        raise click.UsageError(str(exc)) from exc
    return result


def _module(app: Any, name: str) -> str:
    return str(getattr(app, "home", None) or name.partition(":")[0])


def _see_that_it_fits(scale: Sequence[float | None]) -> None:
    import ray

    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    if scale[-1] > largest:
        raise click.UsageError(f"--scale {scale[-1]:g}: the largest host here has {largest:g} CPUs; use --address")


class _Progress:
    """Shows progress: in place on a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = time.monotonic()

    def __call__(self, measured: int, left: int | None) -> None:
        now = time.monotonic()
        text = f"measured {measured} runs" + (f", {left} to come" if left else "")
        if self._console.is_terminal:
            self._console.print(text, end="\n" if left == 0 else "   \r", highlight=False)
        elif left == 0 or now - self._said > 5:
            self._said = now
            click.echo(text, err=True)
