"""A report as tables for a terminal, and as the setting to be written into the project."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from raycelery.rightsize.predicting import Prediction
from raycelery.rightsize.report import Report


def snippet(report: Report) -> str:
    """Return the setting that makes every task ask for what is recommended; it goes where ``app`` is configured."""
    lines = [
        f'    "{name}": {{"num_cpus": {wanted["num_cpus"]:g}, "memory": {wanted["memory"]:_}}},'
        for name, wanted in report.annotations.items()
    ]
    return "\n".join(["app.conf.task_annotations = {", *lines, "}"])


def render(report: Report, present: str) -> RenderableType:
    """Return what is shown on a terminal.

    Arguments:
        report: the report.
        present: what the present is: the requests of the tasks, or the fleet of workers that was named.
    """
    parts: list[RenderableType] = [_title("what tasks use"), _used(report)]
    parts += [_title("what they should ask for"), _asked(report)]
    for name in report.scaling:
        parts += [_title(f"{name}, by the CPUs that it asks for"), _scaling(report, name)]
    parts += [_title(_where(report)), _whole(report, present)]
    notes = [f"{name}: {note}" for name, size in report.sizes.items() for note in size.notes]
    notes += [f"{name}: none of {count} runs succeeded, so nothing is said" for name, count in report.failed.items()]
    if notes:
        parts.append(Text("\n".join(f"- {note}" for note in notes)))
    parts.append(Text("\n" + snippet(report)))
    return Group(*parts)


def seconds(value: float) -> str:
    """Write a duration."""
    if value == float("inf"):
        return "never"
    if value >= 120:
        return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def size(value: float) -> str:
    """Write a number of bytes."""
    return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def _used(report: Report) -> Table:
    table = Table()
    table.add_column("task", overflow="fold")
    for column in ("runs", "CPU", "time", "CPUs busy", "memory", "before"):
        table.add_column(column, justify="right")
    for name, one in report.sizes.items():
        busy = f"{one.busy:.2f} to {one.busy_high:.2f}"
        memory = size(one.peak), size(one.before)
        table.add_row(escape(name), str(one.samples), seconds(one.cpu), seconds(one.wall), busy, *memory)
    return table


def _asked(report: Report) -> Table:
    table = Table()
    table.add_column("task", overflow="fold")
    table.add_column("asks now", justify="right")
    for column in ("num_cpus", "memory", f"at once on {report.hosts.cpus:g} CPUs"):
        table.add_column(column, justify="right", style="bold green")
    for name, one in report.sizes.items():
        now = f"{one.now_cpus:g} CPU" + (f", {size(one.now_memory)}" if one.now_memory else "")
        table.add_row(escape(name), now, f"{one.num_cpus:g}", size(one.memory), f"{one.per_host:,}")
    return table


def _scaling(report: Report, name: str) -> Table:
    table = Table()
    for column in ("num_cpus", "time", "speed-up", "efficiency", f"all {report.totals[name]:,}"):
        table.add_column(column, justify="right")
    for one in report.scaling[name]:
        table.add_row(
            f"{one.num_cpus:g}", seconds(one.wall), f"{one.speedup:.2f}x", f"{one.efficiency:.0%}",
            seconds(one.makespan), style="bold green" if one.num_cpus == report.sizes[name].num_cpus else "",
        )  # fmt: skip
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _where(report: Report) -> str:
    hosts, total = report.hosts, sum(report.totals.values())
    where = f"{hosts.count} host{'s' if hosts.count > 1 else ''} of {hosts.cpus:g} CPUs"
    if hosts.memory is not None:
        where += f" and {size(hosts.memory)} for tasks"
    return f"predicted: {total:,} tasks on {where}"


def _whole(report: Report, present: str) -> Table:
    table = Table(caption=f"now: {present}; on executors that are up", caption_justify="left")
    table.add_column("", overflow="fold")
    for column in ("tasks", "at once", "makespan", "CPU utilisation"):
        table.add_column(column, justify="right")
    rows = {escape(name): (report.totals[name], *played) for name, played in report.alone.items()}
    if len(rows) > 1:
        rows["all together"] = (sum(report.totals.values()), report.present, report.recommended)
    for number, (name, (count, now, then)) in enumerate(rows.items(), 1):
        table.add_row(
            name,
            f"{count:,}",
            f"{_at_once(now)} → [bold green]{_at_once(then)}[/]",
            f"{seconds(now.makespan)} → [bold green]{seconds(then.makespan)}[/]",
            f"{now.utilisation:.0%} → [bold green]{then.utilisation:.0%}[/]",
            end_section=number == len(report.alone),
        )
    return table


def _at_once(one: Prediction) -> str:
    return f"{one.concurrency:,}" + (f" ({one.unplaced:,} never)" if one.unplaced else "")
