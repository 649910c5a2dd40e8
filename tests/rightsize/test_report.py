"""From samples to tables, plain data and a setting."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from migration_tool.shim.annotate import read_requests
from raycelery.app.settings import check_settings
from raycelery.rightsize.predicting import Hosts
from raycelery.rightsize.rendering import render, snippet
from raycelery.rightsize.report import analyse, as_json, jobs
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
    assert "…" not in text
    assert "now: as they ask now" in text
