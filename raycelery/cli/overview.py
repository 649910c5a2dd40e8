"""The view that ``raycelery status`` and ``raycelery top`` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Overview = Mapping[str, Any]


def render(overview: Overview, before: Overview | None = None, height: int | None = None) -> RenderableType:
    """Return the view of an overview as the dispatcher gives it.

    Arguments:
        overview: see :func:`raycelery.control.overview.overview`.
        before: an earlier one, from which rates are worked out.
        height: lines that there is room for; the list of running tasks is cut to it.
    """
    tables = [table for table in (_nodes(overview), _queues(overview), _lanes(overview)) if table.row_count]
    parts: list[RenderableType] = [_headline(overview, before), *tables]
    room = None
    if height is not None:
        # A table has a line of space, a title and a head; so has the one to come, and a line for what it leaves out.
        used = 1 + sum(3 + table.row_count for table in tables)
        room = max(1, height - used - 5)
    return Group(*parts, *_running(overview, room))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        left = column in ("node", "queue", "request", "task", "arguments", "on", "executors")
        table.add_column(column, justify="left" if left else "right", no_wrap=True, overflow="ellipsis", style="")
    return table


def _headline(overview: Overview, before: Overview | None) -> Text:
    finished = sum(overview["finished"].values())
    waiting = sum(queue["waiting"] for queue in overview["queues"])
    parts = [
        f"{waiting:,} waiting",
        f"{len(overview['running']):,} running",
        f"{overview['scheduled']:,} scheduled",
        f"{finished:,} finished",
    ]
    if before is not None:
        seconds = max(0.001, overview["time"] - before["time"])
        parts.append(f"{(finished - sum(before['finished'].values())) / seconds:,.1f}/s")
    if overview["borrowed"]:
        parts.append(", ".join(f"{cpus:g} CPU borrowed from {name}" for name, cpus in overview["borrowed"].items()))
    if overview["lent"]:
        parts.append(", ".join(f"{cpus:g} CPU lent to {name}" for name, cpus in overview["lent"].items()))
    up = f"up {_span(overview['time'] - overview['since'])}"
    memory = f"dispatcher {_bytes(overview['dispatcher']['memory'])}"
    return Text.assemble((str(overview["application"]), "bold green"), "  ", "  ".join([*parts, up, memory]))


def _nodes(overview: Overview) -> Table:
    table = _table("\nNodes", "node", "CPUs held", "CPU", "memory", "load", "executors")
    for node in overview["nodes"]:
        load = node.get("loadavg")
        table.add_row(
            node["hostname"],
            f"{node['cpus_held']:g} of {node['cpus']:g}",
            f"{node['cpu_percent']:.0f}%" if "cpu_percent" in node else "-",
            f"{_bytes(node['memory_used'])} of {_bytes(node['memory_total'])}" if "memory_used" in node else "-",
            f"{load[0]:.2f}" if load else "-",
            _kinds(node["executors"]),
        )
    return table


def _queues(overview: Overview) -> Table:
    table = _table("\nQueues", "queue", "waiting", "running", "limit")
    for queue in overview["queues"]:
        limit = "-" if queue["limit"] is None else "cancelled" if queue["limit"] == 0 else f"{queue['limit']:,}"
        table.add_row(queue["name"], f"{queue['waiting']:,}", f"{queue['running']:,}", limit)
    return table


def _lanes(overview: Overview) -> Table:
    table = _table("\nLanes", "request", "waiting", "executors")
    for lane in overview["lanes"]:
        request = ", ".join(f"{_amount(name, amount)}" for name, amount in lane["request"].items()) or "no CPU"
        if lane["bookkeeping"]:
            request = "bookkeeping"
        if lane["one_shot"]:
            request += ", a process per task"
        if lane["runtime_env"]:
            request += f", with {', '.join(lane['runtime_env'])}"
        table.add_row(request, f"{lane['waiting']:,}", _kinds(lane["executors"]))
    return table


def _running(overview: Overview, room: int | None) -> list[RenderableType]:
    table = _table("\nRunning", "task", "arguments", "for", "on", "pid")
    running = overview["running"]
    if not running:
        return []
    shown = running if room is None else running[:room]
    for one in shown:
        arguments = f"{one['args'] or ''} {'' if one['kwargs'] in (None, '{}') else one['kwargs']}".strip()
        where = f"{one['node']}{', waits for subtasks' if one['waits_for_subtasks'] else ''}"
        span = _span(overview["time"] - one["since"])
        table.add_row(one["task"], _cut(arguments, 40), span, where, str(one["pid"] or "-"))
    left = len(running) - len(shown)
    return [table, Text(f"and {left:,} more", style="dim")] if left else [table]


def _kinds(counts: Mapping[str, int]) -> str:
    kinds = ("busy", "waiting", "idle", "paused", "starting")
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds if counts.get(kind)) or "none"


def _amount(name: str, amount: float) -> str:
    return _bytes(amount) if name == "memory" else f"{amount:g} {name}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _bytes(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
