"""What is made of measurements: figures, ratios, tables, pages, comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from plotly.offline import get_plotlyjs
from rich.console import Console

from bench import figures, measure
from bench.cli import command
from bench.report import document, page, terminal
from tests.bench.made_up import report, turn


def test_figures_come_from_what_each_task_noted() -> None:
    one = turn("celery", seconds=0.5, slots=2, tasks=20)
    assert figures.makespan(one) == 5.0
    assert figures.queueing(one)[:4] == [0.0, 0.0, 0.5, 0.5]
    assert figures.figure("queueing_max").of(one) == 4.5
    assert figures.figure("concurrency").of(one) == 2
    assert figures.figure("throughput").of(one) == 4.0
    assert figures.utilisation(one) == pytest.approx(100.0)
    assert figures.figure("cpu_per_task").of(one) == pytest.approx(0.5)
    assert figures.figure("others").of(one) == pytest.approx(10.0)
    times, waiting = figures.queue_length(one, points=10)
    assert waiting == [18, 16, 14, 12, 10, 8, 6, 4, 2, 0, 0]
    assert times[-1] == 5.0


def test_queueing_of_a_group_is_of_its_calls_alone() -> None:
    one = turn("celery", seconds=1.0, slots=1, tasks=4, groups=("small", "large"))
    assert figures.figure("queueing_max:small").of(one) == 2.0
    assert figures.figure("queueing_max:large").of(one) == 3.0


def test_ratios_are_of_turns_of_one_round() -> None:
    # The machine grew ten times slower in the second round; the ratio did not change.
    turns = [
        turn("celery", 0, seconds=0.4), turn("raycelery", 0, seconds=0.1),
        turn("celery", 1, seconds=4.0), turn("raycelery", 1, seconds=1.0),
    ]  # fmt: skip
    found = figures.ratio(turns, "makespan", "raycelery", "celery")
    assert found is not None
    assert (found.low, found.median, found.high) == pytest.approx((4.0, 4.0, 4.0))
    found = figures.ratio(turns, "throughput", "raycelery", "celery")
    assert found is not None
    assert found.median == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00012, "s", "120 µs"), (0.0123, "s", "12.3 ms"), (75.25, "s", "75.2 s"), (1234.5, "/s", "1,234/s"),
        (2_500_000_000, "bytes", "2.5 GB"), (81.234, "%", "81.2 %"), (0.0, "s", "0 µs"), (3, "", "3"),
    ],
)  # fmt: skip
def test_numbers_have_units(value: float, unit: str, text: str) -> None:
    assert figures.show(value, unit) == text


def test_different_results_are_not_compared() -> None:
    turns = [turn("celery", digest="a"), turn("raycelery", digest="a"), turn("ray", digest="b")]
    problem = measure.differing(turns)
    assert problem == "results differ, so nothing is compared: celery and raycelery is unlike ray"
    assert measure.differing(turns[:2]) is None
    refused = report(turns, problem=problem)
    assert document.rows(refused["trials"][0]) == []
    assert "celery and raycelery is unlike ray" in page.render(refused)


def test_the_table_says_how_many_times_better() -> None:
    console = Console(width=200, record=True)
    console.print(terminal.table(report([turn("celery", seconds=0.5), turn("raycelery", seconds=0.1)])["trials"][0]))
    lines = console.export_text().splitlines()
    place = next(number for number, line in enumerate(lines) if "makespan" in line)
    assert "5 s" in lines[place]
    assert "1 s" in lines[place]
    assert "5x" in lines[place + 1]


def test_it_is_said_that_others_used_the_machine() -> None:
    quiet, loud = turn("celery"), turn("raycelery", seconds=0.1)
    assert document.busy(report([quiet, loud])["trials"][0]) is None
    loud["usage"]["machine"] = [moment * 2 * 1.53 for moment in loud["usage"]["time"]]
    made = report([quiet, loud])
    said = document.busy(made["trials"][0])
    assert said is not None
    assert "10 % during celery, 53 % during raycelery: believe no ratio" in said
    assert said in page.render(made)


@pytest.mark.parametrize("width", [60, 80, 100_000])
def test_numbers_are_whole_whatever_the_width(width: int) -> None:
    turns = [turn(system, number, seconds=0.123 * (number + 1)) for number in range(3) for system in ("celery", "ray")]
    made = report(turns)["trials"][0]
    console = Console(width=width, record=True)
    console.print(terminal.table(made))
    text = " ".join(console.export_text().split())
    assert "…" not in text
    for row in document.rows(made):
        for cell in row.cells.values():
            assert document.parts(cell.value, row.figure.unit)[0] in text


def test_the_page_needs_nothing_else_and_escapes_text() -> None:
    turns = [turn("celery", groups=("</script><b>x", "y")), turn("raycelery", slots=4)]
    text = page.render(report(turns))
    assert "&lt;made&amp;up&gt;" in text
    assert "<made&up>" not in text
    assert "</script><b>" not in text
    assert "&lt;here&gt;" in text
    text = text.replace(get_plotlyjs(), "")
    for outside in ('src="http', "src='http", 'href="http', "@import"):
        assert outside not in text
    for title in ("CPU utilisation", "Queue length", "Queueing time", "Which slot ran which task"):
        assert f"<h3>{title}</h3>" in text


def test_a_page_of_many_tasks_stays_small() -> None:
    turns = [turn(system, tasks=20_000, seconds=0.001) for system in ("celery", "raycelery")]
    empty = len(page.render(report([turn("celery", tasks=2), turn("raycelery", tasks=2)])))
    assert len(page.render(report(turns))) < empty + 200_000


def _compare(tmp_path: Path, before: object, after: object, *options: str) -> tuple[int, str]:
    for name, content in (("a.json", before), ("b.json", after)):
        (tmp_path / name).write_text(json.dumps(content))
    done = CliRunner().invoke(command, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), *options])
    return done.exit_code, done.output


def test_a_regression_fails_the_comparison(tmp_path: Path) -> None:
    before = report([turn("celery", seconds=0.5), turn("raycelery", seconds=0.1)])
    after = report([turn("celery", seconds=0.5), turn("raycelery", seconds=0.14)])
    code, output = _compare(tmp_path, before, after)
    assert code == 1
    assert "regression: zones, raycelery, makespan: 5x to 3.57x" in output
    assert _compare(tmp_path, before, after, "--max-regression", "40%")[0] == 0
    assert _compare(tmp_path, after, before)[0] == 0


def test_a_slower_machine_is_no_regression(tmp_path: Path) -> None:
    before = report([turn("celery", seconds=0.5), turn("raycelery", seconds=0.1)])
    after = report([turn("celery", seconds=1.0), turn("raycelery", seconds=0.2)])
    assert _compare(tmp_path, before, after)[0] == 0
    alone = report([turn("raycelery", seconds=0.1)]), report([turn("raycelery", seconds=0.2)])
    assert _compare(tmp_path, *alone)[0] == 1


def test_rounds_that_overlap_are_no_regression(tmp_path: Path) -> None:
    def rounds(*seconds: float) -> object:
        return report([turn("raycelery", number, seconds=each) for number, each in enumerate(seconds)])

    assert _compare(tmp_path, rounds(0.1, 0.2, 0.3), rounds(0.25, 0.3, 0.4))[0] == 0
    assert _compare(tmp_path, rounds(0.1, 0.2, 0.22), rounds(0.25, 0.3, 0.4))[0] == 1


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    code, output = _compare(tmp_path, {"format": 99}, {"format": 99})
    assert code == 2
    assert "make it again with 'raycelery bench'" in output
