"""The legacy project trains zones on stock Celery, and the same ones equally on Ray, migrated either way."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.legacy_examples import projects
from tests.legacy_examples.projects import Project

NAME = "zone_forecast"
ZONES = 3
Row = dict[str, str]


def train(project: Project, zones: int) -> tuple[list[Row], str]:
    """What ``train_all.py`` writes and says."""
    output = project.folder / f"forecasts-{zones}.csv"
    said = project.says("train_all.py", "--zones", str(zones), "--output", str(output), "--timeout", "200")
    with output.open(newline="") as file:
        return list(csv.DictReader(file)), said


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return projects.copy(NAME, tmp_path_factory.mktemp("legacy"))


@pytest.fixture(scope="module")
def stock(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], str, list[Row]]:
    """Three zones and then the first of them again, on stock Celery with a worker of two."""
    with projects.on_celery(NAME, tmp_path_factory.mktemp("stock"), redis_url, "celery_app") as running:
        rows, said = train(running, ZONES)
        again, _ = train(running, 1)
    return rows, said, again


@pytest.mark.timeout(400)
def test_stock_celery_trains_the_zones(project: Project, stock: tuple[list[Row], str, list[Row]]) -> None:
    rows, said, _ = stock
    jobs = project.python(f"import data, json; print(json.dumps(data.partitions({ZONES})))")
    assert isinstance(jobs, list)
    assert [[row["origin"], row["dest"], row["daypart"]] for row in rows[::7]] == jobs
    assert len(rows) == 7 * len(jobs)
    assert [row["date"] for row in rows[:7]] == [f"2014-01-0{day}" for day in range(1, 8)]
    for row in rows:
        assert row["departures"].isdigit()
        assert math.isfinite(float(row["model_mae"]))
        assert math.isfinite(float(row["baseline_mae"]))
    assert f"{len(jobs)} trained, 0 failed" in said
    assert "1232 have enough days for a model" in said


@pytest.mark.timeout(400)
def test_training_again_gives_the_same(stock: tuple[list[Row], str, list[Row]]) -> None:
    rows, _, again = stock
    assert again
    assert again == rows[: len(again)]


@pytest.mark.timeout(400)
def test_models_beat_the_baseline_on_the_busiest_zones(stock: tuple[list[Row], str, list[Row]]) -> None:
    rows, _, _ = stock
    errors = {name: sum(float(row[name]) for row in rows) for name in ("model_mae", "baseline_mae")}
    assert errors["model_mae"] < 0.95 * errors["baseline_mae"]


@pytest.mark.timeout(500)
def test_raycelery_trains_them_equally_without_redis(stock: tuple[list[Row], str, list[Row]], tmp_path: Path) -> None:
    rows, said = train(projects.on_raycelery(NAME, tmp_path), ZONES)
    assert rows == stock[0]
    assert "0 failed" in said


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_plain_ray_trains_them_equally(stock: tuple[list[Row], str, list[Row]], tmp_path: Path) -> None:
    project = projects.on_raycelery(NAME, tmp_path, "actors")
    rows, said = train(project, 1)
    assert rows == stock[2]
    assert "0 failed" in said
    # Nothing but the application, on which no task is left, knows of either.
    sources = "".join(path.read_text() for path in project.folder.glob("*.py") if path.name != "celery_app.py")
    assert "from raycelery" not in sources
    assert "import celery" not in sources


def test_over_a_thousand_partitions_are_worth_a_model(project: Project) -> None:
    found = project.python(
        """
        import data, json
        jobs = data.partitions()
        methods = data.catalog()["method"]
        print(json.dumps({"jobs": jobs, "few": data.partitions(2), "methods": methods.value_counts().to_dict()}))
        """,
    )
    assert isinstance(found, dict)
    assert found["methods"] == {"model": 1232, "average": 172, "refused": 602}
    jobs = found["jobs"]
    assert len(jobs) == len({tuple(job) for job in jobs}) == 1232 + 172
    assert jobs[0] == ["JFK", "LAX", "05:00-06:30"]
    assert found["few"] == jobs[: len(found["few"])]
    assert len({tuple(job[:2]) for job in found["few"]}) == 2


def test_a_result_is_json_and_tells_what_it_cost(project: Project) -> None:
    result = project.python(
        """
        import json, tasks
        print(json.dumps(tasks.train_zone("LGA", "ORD", "08:00-09:30")))
        """,
    )
    assert isinstance(result, dict)
    assert result["zone"] == "LGA-ORD"
    assert result["daypart"] == "08:00-09:30"
    assert result["method"] == "model"
    assert 250 < result["rows"] <= 337
    assert len(result["forecast"]) == 7
    assert result["cpu_seconds"] > 0
    assert result["pid"] > 0
    assert result["finished"] - result["started"] == pytest.approx(result["wall_seconds"])


def test_a_forecast_depends_on_nothing_it_could_not_know(project: Project) -> None:
    """With all that came after a day taken away, the forecast of the week after it stays the same."""
    same = project.python(
        """
        import json
        import pandas as pd
        import data, forecast

        until = pd.Timestamp("2013-11-19")
        days = pd.date_range("2013-11-20", periods=7)

        def predict():
            return forecast.Forecast("EWR", "BOS", "17:00-18:30").load().features().fit(until).predict(days).tolist()

        def before(table):
            return table.loc[:until].reindex(table.index)

        known = predict()
        full = forecast.tables()
        past = data.Tables(
            before(full.departures), before(full.zones), {at: before(days) for at, days in full.weather.items()}
        )
        forecast.tables = lambda: past
        print(json.dumps([known, predict()]))
        """,
    )
    assert isinstance(same, list)
    assert same[0] == same[1]
    assert sum(same[0]) > 0


def test_processes_that_fill_the_cache_at_once_agree(project: Project, tmp_path: Path) -> None:
    code = "import data; print(int(data.tables().departures.to_numpy().sum()))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=project.folder,
            env={**os.environ, "ZONE_FORECAST_CACHE": str(tmp_path / "cache")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert {process.communicate(timeout=100)[0] for process in processes} == {"328521\n"}
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()) == ["departures", "weather"]


def test_errors_name_the_remedy(project: Project) -> None:
    messages = project.python(
        """
        import json
        import data, forecast

        def no_data():
            data.PACKAGE = "no_such_package"
            data._source("weather.csv")

        calls = [
            lambda: data.partitions(0),
            lambda: forecast.Forecast("JFK", "LAX", "noon"),
            lambda: forecast.Forecast("JFK", "PSP", "11:00-12:30"),
            no_data,
        ]
        messages = []
        for call in calls:
            try:
                call()
            except (RuntimeError, ValueError) as error:
                messages.append(str(error))
        print(json.dumps(messages))
        """,
    )
    assert messages == [
        "0 zones cannot be trained: ask for 1 or more",
        "there is no partition JFK LAX noon: use one of data.partitions()",
        "JFK PSP 11:00-12:30 departed too rarely or too long ago (days: 1, last: 2013-01-05):"
        " use one of data.partitions()",
        "the flight records are not installed: run 'pip install no_such_package'",
    ]
