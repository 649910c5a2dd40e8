"""The page's plots, drawn by Plotly, for light and dark backgrounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import figures
from ..figures import Turn
from .document import Row, ratio_text

COLOURS = {
    "celery": "#d97732",
    "raycelery": "#3b82f6",
    "ray": "#16a085",
    "bridge": "#7a8aa0",
    "dramatiq": "#a25ddc",
    "huey": "#d6558f",
    "taskiq": "#8f9a27",
}
#: Points of a curve, and bars of a timeline: more cannot be seen, and make the page slow.
_POINTS, _BARS = 300, 2500
_GRID = "rgba(128,128,128,0.22)"
_MUTED = "#7b8494"


def plots(trial: dict[str, Any], rows: list[Row]) -> list[dict[str, Any]]:
    """Return the plots of a workload: "title", "note", "html", and "wide" for those that need the whole width."""
    shown = {system: typical(trial["turns"], system) for system in trial["systems"]}
    made: list[tuple[str, str, go.Figure | None, bool]] = [
        ("How many times better", f"than {trial['systems'][0]}, median of the rounds", _ratios(trial, rows), False),
        ("CPU utilisation", "of the machine, by all processes of the system and its caller", _cpu(shown), False),
        ("Queue length", "tasks submitted and not yet started", _queue(shown), False),
        ("Queueing time", "share of tasks that started within so many seconds", _queueing(shown), False),
        ("Which slot ran which task", "one line per worker process", _timeline(shown), True),
    ]
    return [
        {"title": title, "note": note, "wide": wide, "html": _html(figure)}
        for title, note, figure, wide in made
        if figure is not None
    ]


def typical(turns: list[Turn], system: str) -> Turn:
    """Return the system's turn with the median makespan, which curves show."""
    own = sorted((turn for turn in turns if turn["system"] == system), key=figures.makespan)
    wanted = statistics.median_low([figures.makespan(turn) for turn in own])
    return next(turn for turn in own if figures.makespan(turn) == wanted)


def _html(figure: go.Figure) -> str:
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"responsive": True, "displayModeBar": False}
    )
    return text


def _base(height: int = 260, **layout: Any) -> dict[str, Any]:
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID, "automargin": True, "fixedrange": True}
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": _MUTED},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
        "hoverlabel": {"font": {"size": 12}},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        **layout,
    }


def _ratios(trial: dict[str, Any], rows: list[Row]) -> go.Figure | None:
    """Bars of each figure's ratio, on a logarithmic axis: twice as good and half as good are as far from 1."""
    base, *others = trial["systems"]
    plot = go.Figure()
    shown: set[str] = set()
    most = 1.0
    for system in reversed(others):  # bars are drawn from below
        own = [(row.figure.title, ratio) for row in reversed(rows) if (ratio := row.cells[system].ratio)]
        shown.update(title for title, _ in own)
        most = max([most, *(max(ratio.high, 1 / ratio.low) for _, ratio in own)])
        plot.add_bar(
            name=system,
            orientation="h",
            y=[title for title, _ in own],
            x=[ratio.median - 1 for _, ratio in own],
            base=1,
            text=[f"{figures.plain(ratio.median)}x" for _, ratio in own],
            textposition="outside",
            cliponaxis=False,
            hovertext=[ratio_text(ratio) for _, ratio in own],
            hoverinfo="text",
            marker_color=COLOURS[system],
        )
    if not shown:
        return None
    reach = math.log10(most) + 0.35
    plot.update_layout(_base(90 + 26 * len(shown) * max(1, len(others)), barmode="group", bargap=0.3))
    plot.update_layout(legend_traceorder="reversed")
    low = min(0.0, *(math.log10(ratio.median) for row in rows for s in others if (ratio := row.cells[s].ratio)))
    plot.update_xaxes(type="log", range=[low - 0.6 if low else -0.02, reach], dtick=1, ticksuffix="x")
    plot.add_vline(x=1, line_color=COLOURS[base], line_width=2)
    return plot


def _lines(shown: dict[str, Turn], points: Callable[[Turn], tuple[list[float], list[Any]]], shape: str) -> go.Figure:
    plot = go.Figure()
    for system, turn in shown.items():
        x, y = points(turn)
        if x:
            plot.add_scatter(
                name=system, x=x, y=y, mode="lines", line={"color": COLOURS[system], "width": 2, "shape": shape}
            )
    plot.update_layout(_base(showlegend=True))
    return plot


def _cpu(shown: dict[str, Turn]) -> go.Figure | None:
    def points(turn: Turn) -> tuple[list[float], list[float]]:
        usage = turn["usage"]
        step = max(1, len(usage["time"]) // 80)
        times, used = usage["time"][::step], usage["cpu"][::step]
        shares = [
            round(100 * (used[n] - used[n - 1]) / max(1e-9, times[n] - times[n - 1]) / turn["cpus"], 1)
            for n in range(1, len(times))
        ]
        return times[:-1] + times[-1:] if shares else [], [*shares, *shares[-1:]]

    if not any(points(turn)[0] for turn in shown.values()):
        return None
    plot = _lines(shown, points, "hv")
    plot.update_yaxes(range=[0, 105], ticksuffix=" %")
    plot.update_xaxes(title="seconds", rangemode="tozero")
    return plot


def _queue(shown: dict[str, Turn]) -> go.Figure:
    plot = _lines(shown, figures.queue_length, "hv")
    plot.update_xaxes(title="seconds")
    plot.update_yaxes(rangemode="tozero")
    return plot


def _queueing(shown: dict[str, Turn]) -> go.Figure | None:
    """The share of tasks by queueing time; a line for each group where there are groups."""
    plot = go.Figure()
    dashes = ("solid", "dot", "dash", "dashdot")
    for system, turn in shown.items():
        groups = list(dict.fromkeys(turn["calls"]["group"]))
        for number, group in enumerate(groups):
            waits = sorted(figures.queueing(turn, group))
            if not waits:
                continue
            step = max(1, len(waits) // _POINTS)
            places = [*range(0, len(waits) - 1, step), len(waits) - 1]
            plot.add_scatter(
                name=f"{system} {escape(group)}".strip(),
                x=[round(waits[place], 5) for place in places],
                y=[round(100 * (place + 1) / len(waits), 2) for place in places],
                mode="lines",
                line={"color": COLOURS[system], "width": 2, "shape": "hv", "dash": dashes[number % len(dashes)]},
            )
    if not plot.data:
        return None
    plot.update_layout(_base(showlegend=True))
    plot.update_yaxes(range=[0, 103], ticksuffix=" %")
    plot.update_xaxes(title="seconds", rangemode="tozero")
    return plot


def _timeline(shown: dict[str, Turn]) -> go.Figure | None:
    """Each slot's tasks, the systems below each other on one axis of time; none where there are too many tasks."""
    lanes = {system: _slots(turn) for system, turn in shown.items()}
    lanes = {system: slots for system, slots in lanes.items() if 0 < sum(map(len, slots.values())) <= _BARS}
    if not lanes:
        return None
    heights = [max(60, min(320, 22 * len(slots))) for slots in lanes.values()]
    plot = make_subplots(
        rows=len(lanes), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=36 / (sum(heights) + 200)
    )
    for number, (system, slots) in enumerate(lanes.items(), 1):
        # Consecutive bars alternate between two shades, so that the ends of tasks can be seen.
        for shade, opacity in ((0, 1.0), (1, 0.55)):
            x: list[float | None] = []
            y: list[int | None] = []
            text: list[str | None] = []
            for place, tasks in enumerate(slots.values()):
                for task, started, ended, group in tasks[shade::2]:
                    x += [started, ended, None]
                    y += [place, place, None]
                    text += [f"{escape(group)} task {task}: {ended - started:.3g} s".strip()] * 2 + [None]
            width = max(2, min(14, int(0.75 * heights[number - 1] / len(slots))))
            line = {"color": COLOURS[system], "width": width}
            plot.add_scatter(
                x=x, y=y, text=text, hoverinfo="text", mode="lines", line=line, opacity=opacity, name=system,
                legendgroup=system, showlegend=shade == 0, row=number, col=1,
            )  # fmt: skip
        plot.update_yaxes(
            title_text="1 slot" if len(slots) == 1 else f"{len(slots)} slots",
            showticklabels=False,
            range=[-0.7, len(slots) - 0.3],
            row=number,
            col=1,
        )
    common = _base(sum(heights) + 110)
    axis = common.pop("xaxis")
    del common["yaxis"]
    plot.update_layout(common)
    plot.update_xaxes(axis)
    plot.update_yaxes({**axis, "showgrid": False})
    plot.update_xaxes(title_text="seconds", row=len(lanes), col=1)
    return plot


def _slots(turn: Turn) -> dict[str, list[tuple[int, float, float, str]]]:
    """By slot, in the order of their first tasks: number, start, end and group of each task."""
    calls = turn["calls"]
    runs = [
        (started, ended, slot, number, group)
        for number, (started, ended, slot, group) in enumerate(
            zip(calls["started"], calls["ended"], calls["slot"], calls["group"], strict=True)
        )
        if started is not None
    ]
    found: dict[str, list[tuple[int, float, float, str]]] = {}
    for started, ended, slot, number, group in sorted(runs):
        found.setdefault(slot, []).append((number, started, ended, group))
    return found
