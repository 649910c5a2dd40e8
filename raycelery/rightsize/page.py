"""The report as a self-contained HTML page. Needs the extra ``bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from raycelery.executor.profiling import sample
from raycelery.rightsize import rendering
from raycelery.rightsize.report import Report

#: Most runs of a task that are drawn, evenly spread from first to last.
_MOST_DRAWN = 1_000
_COLOURS = {"used": "#0f62fe", "asked": "#0b7a4b", "first": "#9aa4b2"}


def render(report: Report, samples: Mapping[float | None, Sequence[sample.Sample]], present: str, command: str) -> str:
    """Return the page of a report; every text in it is escaped.

    Arguments:
        report: the report.
        samples: its samples, by the CPUs that calls asked for.
        present: description of the present requests or workers.
        command: the command that made it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip
    runs = [one for found in samples.values() for one in found]
    text: str = environment.get_template("page.html.jinja").render(
        where=rendering.where(report),
        present=present,
        command=command,
        least=report.least,
        tasks=[_task(report, name, [one for one in runs if one.task == name]) for name in report.sizes],
        rows=[
            {
                "name": name,
                "count": f"{count:,}",
                "pairs": [
                    (rendering.at_once(now), rendering.at_once(then)),
                    (rendering.seconds(now.makespan), rendering.seconds(then.makespan)),
                    (f"{now.utilisation:.0%}", f"{then.utilisation:.0%}"),
                ],
            }
            for name, count, now, then in rendering.rows(report)
        ],
        notes=rendering.notes(report),
        snippet=rendering.snippet(report) if report.annotations else "",
        script=get_plotlyjs(),
    )
    return text


def _task(report: Report, name: str, runs: Sequence[sample.Sample]) -> dict[str, Any]:
    size = report.sizes[name]
    return {
        "name": name,
        "enough": report.enough(name),
        "runs": f"{size.runs:,}",
        "sure": rendering.sure(report, name),
        "memory_chance": f"1 in {size.runs + 1:,}",
        "cpu": rendering.seconds(size.cpu),
        "wall": rendering.seconds(size.wall),
        "busy": f"{size.busy:.2f}",
        "busy_within": f"{size.busy_within[0]:.2f} to {size.busy_within[1]:.2f}",
        "busy_high": f"{size.busy_high:.2f}",
        "peak": rendering.size(size.peak),
        "now_cpus": f"{size.now_cpus:g}",
        "now_memory": rendering.size(size.now_memory) if size.now_memory else "-",
        "num_cpus": f"{size.num_cpus:g}",
        "memory": rendering.size(size.memory),
        "per_host": f"{size.per_host:,}",
        "plots": [
            {
                "title": "CPUs busy in each run",
                "note": "by duration of the run; the line is the recommendation",
                "html": _scatter(runs, "busy", size.num_cpus, "CPUs busy", 1.0),
            },
            {
                "title": "Memory of each run",
                "note": "most that its process held, by duration of the run; the line is the recommendation",
                "html": _scatter(runs, "peak", size.memory, "MB", 1e6),
            },
        ],
    }


def _scatter(runs: Sequence[sample.Sample], field: str, asked: float, unit: str, scale: float) -> str:
    good = [one for one in runs if one.state == "SUCCESS"]
    step = max(1, -(-len(good) // _MOST_DRAWN))
    figure = go.Figure()
    for label, first, colour in (("runs", False, _COLOURS["used"]), ("a process's first", True, _COLOURS["first"])):
        drawn = [one for one in good[::step] if one.first is first]
        if drawn:
            figure.add_trace(
                go.Scatter(
                    x=[round(one.own_wall, 4) for one in drawn],
                    y=[round(getattr(one, field) / scale, 4) for one in drawn],
                    mode="markers", name=label, marker={"color": colour, "size": 7, "opacity": 0.7},
                )
            )  # fmt: skip
    figure.add_hline(y=asked / scale, line={"color": _COLOURS["asked"], "dash": "dash"})
    figure.update_layout(
        height=280, margin={"l": 50, "r": 10, "t": 10, "b": 40}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", legend={"orientation": "h", "y": 1.12}, showlegend=True,
    )  # fmt: skip
    figure.update_xaxes(title="seconds", rangemode="tozero", gridcolor="rgba(128,128,128,.25)", zeroline=False)
    figure.update_yaxes(title=unit, rangemode="tozero", gridcolor="rgba(128,128,128,.25)", zeroline=False)
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    return html
