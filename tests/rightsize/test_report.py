"""From samples to tables, plain data and a setting."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from migration_tool.shim.requests import read_requests
from raycelery.app.settings import check_settings
from raycelery.rightsize.page import render as as_page
from raycelery.rightsize.predicting import Hosts
from raycelery.rightsize.rendering import render, snippet
from raycelery.rightsize.report import analyse, as_json, jobs, wholes
from tests.rightsize.made_up import many, sample

HOSTS = Hosts(10, 16, 45e9)
WAITING = many((0.6, 0.8), (0.2, 0.25))


def test_the_whole_is_compared_with_a_fleet_of_workers() -> None:
    report = analyse({None: WAITING}, HOSTS, {"tasks.train": 1500}, workers=1)
    assert report.totals == {"tasks.train": 1500}
    assert report.present.concurrency == 10
    assert report.present.utilisation == pytest.approx(0.25 / 16, abs=0.01)
    assert report.alone["tasks.train"] == (report.present, report.recommended)
    assert report.recommended.makespan < report.present.makespan / 20


def test_the_present_is_what_tasks_asked_for() -> None:
    report = analyse({None: many((0, 0), (1, 1), num_cpus=4.0)}, Hosts(1, 16), {"tasks.train": 160})
    assert (report.present.concurrency, report.recommended.concurrency) == (4, 16)
    assert report.present.makespan == pytest.approx(4 * report.recommended.makespan, rel=0.05)


def test_more_tasks_than_are_played_take_longer_all_the_same() -> None:
    few = analyse({None: WAITING}, Hosts(1, 16), {"tasks.train": 10_000}).recommended.makespan
    assert analyse({None: WAITING}, Hosts(1, 16), {"tasks.train": 1_000_000}).recommended.makespan == pytest.approx(
        100 * few, rel=0.05
    )


def test_the_order_of_the_calls_is_kept() -> None:
    shrinking = [sample(0, 1.0 - number / 10, started=float(number)) for number in range(10)]
    lengths = [job.cpu for job in jobs(shrinking[::-1], 300, 1, 0)]
    assert len(lengths) == 300
    assert min(lengths[:60]) > max(lengths[-60:])
    assert sum(lengths) == pytest.approx(30 * sum(one.cpu for one in shrinking), rel=0.05)


def test_what_never_succeeded_is_named() -> None:
    report = analyse({None: [*WAITING, sample(task="tasks.broken", state="FAILURE")]}, HOSTS)
    assert report.failed == {"tasks.broken": 1}
    assert list(report.sizes) == ["tasks.train"]


def _threaded(cpus: float, wall: float) -> list:
    return [sample(wall=wall, cpu=wall * cpus * 0.95, num_cpus=cpus) for _ in range(10)]


def test_few_tasks_get_more_cpus_each_where_that_is_faster() -> None:
    measured = {1.0: _threaded(1, 4.0), 2.0: _threaded(2, 2.1), 4.0: _threaded(4, 1.9)}
    report = analyse(measured, Hosts(1, 16), {"tasks.train": 8})
    assert report.sizes["tasks.train"].num_cpus == 2
    two, four = report.scaling["tasks.train"][1:]
    assert (two.speedup, two.efficiency) == (pytest.approx(1.9, abs=0.01), pytest.approx(0.95, abs=0.01))
    assert four.efficiency < 0.6


def test_many_tasks_get_the_fewest_cpus_that_keep_the_hosts_as_busy() -> None:
    measured = {1.0: _threaded(1, 4.0), 2.0: _threaded(2, 2.1)}
    assert analyse(measured, Hosts(1, 16), {"tasks.train": 1000}).sizes["tasks.train"].num_cpus == 1


def test_what_waits_gains_nothing_from_more_cpus() -> None:
    measured = {1.0: WAITING, 2.0: many((0.6, 0.8), (0.2, 0.25), num_cpus=2.0)}
    assert analyse(measured, Hosts(1, 16), {"tasks.train": 1000}).sizes["tasks.train"].num_cpus < 1


def test_the_snippet_is_a_setting_that_raycelery_takes() -> None:
    report = analyse({None: WAITING}, HOSTS)
    app = SimpleNamespace(conf=SimpleNamespace())
    exec(snippet(report), {"app": app})
    check_settings({"task_annotations": app.conf.task_annotations})
    assert app.conf.task_annotations == report.annotations


def test_nothing_is_written_of_tasks_with_few_runs(tmp_path: Path) -> None:
    rare = [sample(task="tasks.rare") for _ in range(3)]
    report = analyse({None: [*WAITING, *rare]}, HOSTS)
    assert list(report.annotations) == ["tasks.train"]
    assert "tasks.rare" not in snippet(report)
    path = tmp_path / "sizes.json"
    path.write_text(json.dumps(as_json(report)))
    assert list(read_requests(path)) == ["tasks.train"]
    # It goes on asking for what it does.
    assert report.alone["tasks.rare"][0] == report.alone["tasks.rare"][1]
    assert list(analyse({None: rare}, HOSTS, least=3).annotations) == ["tasks.rare"]


def test_it_says_how_sure_it_is() -> None:
    alike = analyse({None: [sample(0.5, 0.5) for _ in range(20)]}, HOSTS).sizes["tasks.train"]
    assert alike.unsure == pytest.approx(0, abs=1e-6)
    assert alike.more_memory == pytest.approx(1 / 21)
    differing = [sample(1.0, 0.1 if number % 2 else 2.0) for number in range(10)]
    few = analyse({None: differing}, HOSTS).sizes["tasks.train"]
    assert few.busy_within[0] < few.busy < few.busy_within[1]
    assert any("its runs differ" in note for note in few.notes)
    many_more = analyse({None: differing * 10}, HOSTS).sizes["tasks.train"]
    assert many_more.unsure < few.unsure / 2


def _batch(name: str, parts: int) -> list:
    header = [sample(batch=name, callbacks=("tasks.combine", "tasks.send")) for _ in range(parts)]
    return [*header, sample(task="tasks.combine"), sample(task="tasks.send")]


def test_what_runs_once_a_batch_does_not_grow_with_its_parts() -> None:
    batch = _batch("a", 3)
    assert wholes(batch, {}) == {"tasks.train": 3, "tasks.combine": 1, "tasks.send": 1}
    assert wholes(batch, {}, total=1500) == {"tasks.train": 1498, "tasks.combine": 1, "tasks.send": 1}
    assert wholes(batch, {}, total=1500, batches=30) == {"tasks.train": 1440, "tasks.combine": 30, "tasks.send": 30}
    two = [*batch, *_batch("b", 3)]
    assert wholes(two, {}, share=4) == {"tasks.train": 24, "tasks.combine": 8, "tasks.send": 8}
    assert wholes(two, {"tasks.train": 900, "tasks.combine": 3, "tasks.send": 3})["tasks.combine"] == 3
    # What is a part, too, is not only a callback.
    assert wholes([sample(batch="a", callbacks=("tasks.train",))] * 3, {}, total=30) == {"tasks.train": 30}


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    measured = {None: [sample(task="<b>tasks.train", first=number == 0) for number in range(12)]}
    page = as_page(analyse(measured, HOSTS), measured, "as <they> ask now", "raycelery rightsize -A '<x>'")
    assert "&lt;b&gt;tasks.train" in page
    assert "<b>tasks" not in page
    assert "&lt;they&gt;" in page
    assert "1 in 13 runs to come may need more" in page
    assert not any(outside in page.replace(get_plotlyjs(), "") for outside in ('src="http', 'href="http', "@import"))


def test_its_json_is_what_the_codemod_takes(tmp_path: Path) -> None:
    report = analyse({None: WAITING}, HOSTS)
    path = tmp_path / "sizes.json"
    for written in (as_json(report), report.annotations):
        path.write_text(json.dumps(written))
        assert read_requests(path) == report.annotations


def test_tables_fit_a_narrow_terminal_and_escape_names() -> None:
    measured = {
        1.0: [sample(task="[red]tasks.a_rather_long_name_of_a_task", peak=3_000_000_000)] * 20,
        2.0: [sample(task="[red]tasks.a_rather_long_name_of_a_task", num_cpus=2.0)] * 20,
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(analyse(measured, HOSTS, {}), "as they ask now"))
    text = console.export_text()
    assert "[red]tasks.a" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "3.6 GB" in text
    assert "now: as they ask now" in text
