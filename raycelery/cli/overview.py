"""Renders the overview of an application, for ``raycelery status`` and ``raycelery top``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from raycelery.dispatcher.outcomes import OUTCOMES
from raycelery.terminal.tables import Listed, Table, lines, name, number, words

Overview = Mapping[str, Any]

#: Style of each outcome's count if it is not 0.
STYLES = {"failed": "bold red", "retried": "yellow", "revoked": "magenta", "rejected": "red", "succeeded": "green"}
#: Sort keys of the running tasks, by name.
ORDERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "longest first": lambda one: one["since"],
    "latest first": lambda one: -one["since"],
    "by task": lambda one: (one["task"], one["since"]),
    "by node": lambda one: (one["node"], one["since"]),
}


@dataclass(frozen=True)
class View:
    """What is shown of an overview.

    Arguments:
        height: available lines; None for no limit.
        width: available columns.
        order: order of the running tasks, one of :data:`ORDERS`.
        pattern: show only what has this text in its name, arguments or error, ignoring case.
    """

    height: int | None = None
    width: int = 80
    order: str = "longest first"
    pattern: str = ""

    def shows(self, *texts: str | None) -> bool:
        """Return whether something with these texts matches the pattern."""
        return not self.pattern or any(self.pattern.lower() in (text or "").lower() for text in texts)


def render(overview: Overview, before: Overview | None = None, view: View | None = None) -> RenderableType:
    """Return an overview for the terminal.

    Arguments:
        overview: see :func:`raycelery.dispatcher.monitoring.status.overview`.
        before: an earlier overview, to compute rates.
        view: what is shown; None for everything.
    """
    view = view or View()
    head = _headline(overview, before, view)
    fixed = [_nodes(overview), _queues(overview, view), _lanes(overview), _tasks(overview, before, view)]
    tables = [table for table in fixed if table.rows]
    used = len(head) + sum(3 + len(table.rows) for table in tables)
    room = None if view.height is None else max(2, view.height - used)
    failures = _failures(overview, view, None if room is None else max(1, room // 3 - 3))
    if room is not None and failures:
        room = max(1, room - 3 - len(failures[0].rows))
    parts: list[RenderableType] = [*head]
    for table in [*tables, *failures, *_running(overview, view, None if room is None else max(1, room - 4))]:
        parts += [Text(""), table] if isinstance(table, Table) else [table]
    return Group(*parts)


def outcomes_of(overview: Overview) -> dict[str, int]:
    """Return the number of messages with each outcome."""
    counts = overview["outcomes"].values()
    return {outcome: sum(one.get(outcome, 0) for one in counts) for outcome in OUTCOMES}


def _headline(overview: Overview, before: Overview | None, view: View) -> list[Text]:
    waiting = sum(queue["waiting"] for queue in overview["queues"])
    ended = outcomes_of(overview)
    parts = [
        f"{waiting:,} waiting",
        f"{len(overview['running']):,} running",
        f"{overview['scheduled']:,} scheduled",
        *(f"{count:,} {outcome}" for outcome, count in ended.items() if count or outcome in OUTCOMES[:2]),
    ]
    if before is not None:
        seconds = max(0.001, overview["time"] - before["time"])
        parts.append(f"{(sum(ended.values()) - sum(outcomes_of(before).values())) / seconds:,.1f}/s")
    parts += [f"{cpus:g} CPU leased from {other}" for other, cpus in overview["leased_from"].items()]
    parts += [f"{cpus:g} CPU leased to {other}" for other, cpus in overview["leased_to"].items()]
    parts.append(f"up {span(overview['time'] - overview['since'])}")
    parts.append(f"dispatcher {size(overview['dispatcher']['memory'])}")
    text = [Text(str(overview["application"]), "bold green", no_wrap=True, overflow="ellipsis")]
    for line in lines(parts, max(30, view.width - 2)):
        shown = Text(f"  {line}", no_wrap=True)
        for outcome, style in STYLES.items():
            if ended[outcome]:
                shown.highlight_words([f"{ended[outcome]:,} {outcome}"], style)
        text.append(shown)
    for waits in ("waits_for_nodes", "waits_in_ray"):
        if overview[waits]:
            text.append(Text(f"  {overview[waits]}", "yellow", no_wrap=True, overflow="ellipsis"))
    return text


def _nodes(overview: Overview) -> Table:
    table = Table("Nodes", ("node", "CPUs>", "busy>", "memory>", "load>", "executors"))
    for node in overview["nodes"]:
        load = node.get("loadavg")
        table.add(
            name(f"{node['hostname']}{' (draining)' if node['draining'] else ''}"),
            number(f"{node['cpus_held']:g} of {node['cpus']:g}"),
            number(f"{node['cpu_percent']:.0f}%" if "cpu_percent" in node else "-"),
            number(_of(node["memory_used"], node["memory_total"]) if "memory_used" in node else "-"),
            number(f"{load[0]:.2f}" if load else "-"),
            _kinds(node["executors"]),
        )
    return table


def _queues(overview: Overview, view: View) -> Table:
    table = Table("Queues", ("queue", "waiting>", "running>", "limit>"))
    for queue in overview["queues"]:
        if view.shows(queue["name"]):
            limit = "-" if queue["limit"] is None else "cancelled" if queue["limit"] == 0 else f"{queue['limit']:,}"
            table.add(
                name(queue["name"]),
                number(f"{queue['waiting']:,}"),
                number(f"{queue['running']:,}"),
                number(limit, "yellow" if queue["limit"] == 0 else ""),
            )
    return table


def _lanes(overview: Overview) -> Table:
    table = Table("Lanes", ("request", "waiting>", "executors"))
    for lane in overview["lanes"]:
        request = [_amount(resource, amount) for resource, amount in lane["request"].items()] or ["no CPU"]
        if lane["bookkeeping"]:
            request = ["bookkeeping"]
        if lane["one_shot"]:
            request.append("a process per task")
        if lane["driver"]:
            request.append("for Ray work of the task")
        if lane["runtime_env"]:
            request.append(f"with {', '.join(lane['runtime_env'])}")
        table.add(Listed(request), number(f"{lane['waiting']:,}"), _kinds(lane["executors"]))
    return table


def _tasks(overview: Overview, before: Overview | None, view: View) -> Table:
    ended = outcomes_of(overview)
    shown = [outcome for outcome in OUTCOMES if ended[outcome] or outcome in OUTCOMES[:2]]
    table = Table("Tasks", ("task", *(f"{outcome}>" for outcome in shown)))
    for task, counts in overview["outcomes"].items():
        if view.shows(task):
            cells = [
                number(f"{counts.get(outcome, 0):,}", STYLES.get(outcome, "") if counts.get(outcome) else "dim")
                for outcome in shown
            ]
            table.add(name(task), *cells)
    return table


def _failures(overview: Overview, view: View, room: int | None) -> list[Table]:
    table = Table("Failures", ("failed>", "task", "error", "last>"))
    for group in overview["failures"]:
        if view.shows(group["task"], group["error"], group["message"]) and (room is None or len(table.rows) < room):
            table.add(
                number(f"{group['count']:,}", "red"),
                name(group["task"]),
                words(f"{group['error'].rpartition('.')[2]}: {group['message']}", "red"),
                number(f"{span(overview['time'] - group['last'])} ago"),
            )
    return [table] if table.rows else []


def _running(overview: Overview, view: View, room: int | None) -> Sequence[RenderableType]:
    title = "Running" if view.order == "longest first" else f"Running, {view.order}"
    table = Table(title, ("task", "arguments", "for>", "on", "pid>"))
    running = sorted(overview["running"], key=ORDERS[view.order])
    matching = [one for one in running if view.shows(one["task"], one["args"], one["kwargs"], one["node"])]
    shown = matching if room is None else matching[:room]
    for one in shown:
        arguments = f"{one['args'] or ''} {'' if one['kwargs'] in (None, '{}') else one['kwargs']}".strip()
        waits = ", waits for subtasks" if one["waits_for_subtasks"] else ""
        table.add(
            name(one["task"]),
            words(arguments),
            number(span(overview["time"] - one["since"])),
            name(one["node"] + waits),
            number(str(one["pid"] or "-")),
        )
    if not shown:
        return []
    left = len(matching) - len(shown)
    return [table, Text(f"and {left:,} more", style="dim")] if left else [table]


def _kinds(counts: Mapping[str, int]) -> Listed:
    kinds = ("busy", "waiting", "idle", "paused", "starting")
    return Listed([f"{counts[kind]:,} {kind}" for kind in kinds if counts.get(kind)] or ["none"])


def _amount(resource: str, amount: float) -> str:
    return size(amount) if resource == "memory" else f"{amount:g} {resource}"


def size(amount: float) -> str:
    """Format a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} TB"


def _of(part: float, whole: float) -> str:
    """Format a part of a whole in bytes, with the unit once if it is the same."""
    first, second = size(part), size(whole)
    unit = f" {second.rpartition(' ')[2]}"
    return f"{first.removesuffix(unit)} of {second}"


def span(seconds: float) -> str:
    """Format a duration in seconds."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
