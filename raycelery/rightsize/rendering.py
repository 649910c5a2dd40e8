"""A report as tables for a terminal, and as a setting for the project."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from raycelery.rightsize.predicting import Prediction
from raycelery.rightsize.report import Report
from raycelery.terminal.tables import Table, name, number

_GOOD = "bold green"


def snippet(report: Report) -> str:
    """Return the Celery setting with the recommended requests, to be put where ``app`` is configured."""
    lines = [
        f'    "{task}": {{"num_cpus": {wanted["num_cpus"]:g}, "memory": {wanted["memory"]:_}}},'
        for task, wanted in report.annotations.items()
    ]
    return "\n".join(["app.conf.task_annotations = {", *lines, "}"])


def notes(report: Report) -> list[str]:
    """Return remarks on the report, a sentence each."""
    found = []
    for task, one in report.sizes.items():
        if not report.enough(task):
            runs = f"{one.runs} run{'s' if one.runs > 1 else ''}"
            found.append(f"{task}: only {runs} of at least {report.least} succeeded, so nothing is recommended")
        found += [f"{task}: {note}" for note in one.notes]
    found += [
        f"{task}: none of {count} runs succeeded, so nothing is recommended" for task, count in report.failed.items()
    ]
    return found


def render(report: Report, present: str) -> RenderableType:
    """Return the report for a terminal.

    Arguments:
        report: the report.
        present: description of the present requests or workers.
    """
    parts: list[RenderableType] = [_title("what tasks use"), _used(report)]
    parts += [_title("what they should ask for"), _asked(report)]
    for task in report.scaling:
        parts += [_title(f"{task}, by the CPUs that it asks for"), _scaling(report, task)]
    parts += [_title(where(report)), _whole(report), Text(f"now: {present}; on executors that are up", "dim")]
    told = notes(report)
    if told:
        parts.append(Text("\n".join(["", *(f"- {note}" for note in told)])))
    if report.annotations:
        parts.append(Text("\n" + snippet(report)))
    return Group(*parts)


def seconds(value: float) -> str:
    """Format a duration."""
    if value == float("inf"):
        return "never"
    if value >= 120:
        return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def size(value: float) -> str:
    """Format a number of bytes."""
    return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def sure(report: Report, task: str) -> str:
    """Describe how certain the figures of a task are."""
    return f"±{report.sizes[task].unsure:.0%}" if report.enough(task) else "too few runs"


def _used(report: Report) -> Table:
    table = Table("", ("task", "runs>", "CPU>", "time>", "CPUs busy>", "sure>", "memory>", "before>"))
    for task, one in report.sizes.items():
        table.add(
            name(task),
            number(f"{one.runs:,}"),
            number(seconds(one.cpu)),
            number(seconds(one.wall)),
            number(f"{one.busy:.2f} to {one.busy_high:.2f}"),
            number(sure(report, task), "" if report.enough(task) else "yellow"),
            number(size(one.peak)),
            number(size(one.before)),
        )
    return table


def _asked(report: Report) -> Table:
    table = Table("", ("task", "asks now>", "num_cpus>", "memory>", f"at once on {report.hosts.cpus:g} CPUs>"))
    for task, one in report.sizes.items():
        now = f"{one.now_cpus:g} CPU" + (f", {size(one.now_memory)}" if one.now_memory else "")
        style = _GOOD if report.enough(task) else "dim"
        table.add(
            name(task),
            number(now),
            number(f"{one.num_cpus:g}", style),
            number(size(one.memory), style),
            number(f"{one.per_host:,}", style),
        )
    return table


def _scaling(report: Report, task: str) -> Table:
    table = Table("", ("num_cpus>", "time>", "speed-up>", "efficiency>", f"all {report.totals[task]:,}>"))
    for one in report.scaling[task]:
        style = _GOOD if one.num_cpus == report.sizes[task].num_cpus else ""
        cells = (f"{one.num_cpus:g}", seconds(one.wall), f"{one.speedup:.2f}x", f"{one.efficiency:.0%}",
                 seconds(one.makespan))  # fmt: skip
        table.add(*(number(cell, style) for cell in cells))
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def where(report: Report) -> str:
    """Describe what is predicted."""
    hosts, total = report.hosts, sum(report.totals.values())
    text = f"{hosts.count} host{'s' if hosts.count > 1 else ''} of {hosts.cpus:g} CPUs"
    if hosts.memory is not None:
        text += f" and {size(hosts.memory)} for tasks"
    return f"predicted: {total:,} task{'s' if total > 1 else ''} on {text}"


def rows(report: Report) -> list[tuple[str, int, Prediction, Prediction]]:
    """Return rows of predictions: name, number of tasks, present, recommended; the last is for all tasks together."""
    found = [(task, report.totals[task], *played) for task, played in report.alone.items()]
    if len(found) > 1:
        found.append(("all together", sum(report.totals.values()), report.present, report.recommended))
    return found


def _whole(report: Report) -> Table:
    table = Table("", ("", "tasks>", "at once>", "makespan>", "CPU utilisation>"))
    for task, count, now, then in rows(report):
        table.add(
            name(task, "bold" if task == "all together" else ""),
            number(f"{count:,}"),
            number(f"{at_once(now)} → {at_once(then)}"),
            number(f"{seconds(now.makespan)} → {seconds(then.makespan)}"),
            number(f"{now.utilisation:.0%} → {then.utilisation:.0%}"),
        )
    return table


def at_once(one: Prediction) -> str:
    """Format how many tasks run at once, and how many fit on no host."""
    return f"{one.concurrency:,}" + (f" ({one.unplaced:,} never)" if one.unplaced else "")
