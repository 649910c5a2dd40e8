"""The Django project's command trains the same forecasts through stock Celery and through raycelery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.legacy_examples import projects
from tests.legacy_examples.projects import Project

NAME = "django_forecasts"
WORKER = "mysite"
# Its commands share a cluster, as a site's processes do.
SHARED = True
pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Run:
    """What came of one system: of loading, of the command for the busiest zones and for some, of a dry run."""

    loaded: str
    trained: str
    named: str
    dry: str
    rows: object


ROWS = """
    import json, django
    django.setup()
    from forecasts.models import Training
    rows = Training.objects.order_by("pk").values_list("zone__code", "state", "forecast")
    print(json.dumps(list(map(list, rows))))
"""


def prepare(project: Project) -> str:
    project.says("manage.py", "migrate", "--verbosity", "0")
    return project.says("manage.py", "load_departures")


def use(project: Project) -> Run:
    loaded = prepare(project)
    trained = project.run("manage.py", "train_forecasts")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    # Such as that of a handler that closes connections to the database.
    assert "Traceback" not in trained.stderr
    return Run(
        loaded=loaded,
        trained=trained.stdout,
        named=project.says("manage.py", "train_forecasts", "BOS", "LEX", "ATL"),
        dry=project.says("manage.py", "train_forecasts", "--dry-run"),
        rows=project.python(ROWS, DJANGO_SETTINGS_MODULE="mysite.settings"),
    )


def test_stock_celery_trains_the_zones(stock: Run) -> None:
    assert stock.loaded == "104 zones, 36270 days, 328521 departures\n"
    lines = stock.trained.splitlines()
    assert len(lines) == 9
    assert all(len(line.partition(": ")[2].partition("   off by")[0].split()) == 7 for line in lines[:8])
    assert lines[8].startswith("8 done; off by ")
    assert "LEX: LEX has 38 days: 120 are needed" in stock.named
    assert "2 done, 1 failed; off by" in stock.named
    assert stock.dry == "8 would be trained; there are 11 trainings\n"


def test_raycelery_trains_them_equally_without_redis(stock: Run, ray: Run) -> None:
    assert ray == stock


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    project = projects.on_raycelery(NAME, tmp_path)
    project.says("manage.py", "migrate", "--verbosity", "0")
    done = project.run("manage.py", "train_forecasts")
    assert done.returncode == 1
    assert "run 'manage.py load_departures'" in done.stderr
