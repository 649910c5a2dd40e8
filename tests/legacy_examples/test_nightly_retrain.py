"""What is on the schedule can be sent, by beat and by hand, and comes to the same on stock Celery and on raycelery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.legacy_examples import projects
from tests.legacy_examples.projects import Project

NAME = "nightly_retrain"
WORKER = "celery_app"
# Several programs one after the other: they share a cluster, as on a schedule they would.
SHARED = True
pytestmark = pytest.mark.timeout(400)

#: Sends each entry as the beat process does when it is due.
AS_BEAT = """
    import json
    from celery.beat import Scheduler
    from celery_app import app

    scheduler = Scheduler(app, lazy=True)
    scheduler.setup_schedule()
    sent = {}
    for name, entry in sorted(scheduler.schedule.items()):
        if name in app.conf.beat_schedule:
            result = scheduler.apply_async(entry, advance=False)
            sent[name] = result.get(timeout=200)
    scheduler.close()
    print(json.dumps(sent))
"""
TOMORROW = """
    import json
    from celery_app import app
    print(json.dumps([app.send_task("tasks.tomorrow", (airport,)).get(timeout=200) for airport in ("EWR", "JFK")]))
"""


@dataclass(frozen=True)
class Run:
    """What came of one system: three nights by hand, an entry, then all entries as beat sends them."""

    nights: list[str]
    one: str
    by_beat: Any
    tomorrow: Any
    files: list[str]


def use(project: Project) -> Run:
    nights = [project.says("run_now.py", "--until", until) for until in ("2013-10-31", "2013-11-30", "2013-12-15")]
    one = project.says("run_now.py", "check-hourly")
    by_beat = project.python(AS_BEAT)
    project.says("run_now.py", "retrain-nightly", "--until", "2013-12-24")
    tomorrow = project.python(TOMORROW)
    return Run(nights, one, by_beat, tomorrow, sorted(path.name for path in (project.folder / "models").iterdir()))


def test_stock_celery_runs_what_is_scheduled(stock: Run) -> None:
    assert [line.partition(":")[0] for line in stock.nights[0].splitlines()] == [
        "retrain-nightly",
        "check-hourly",
        "clean-on-sundays",
    ]
    assert stock.nights[0].startswith("retrain-nightly: until 2013-10-31: EWR off by ")
    assert "'EWR-2013-10-31.joblib'" in stock.nights[2], "the third night's cleaning keeps two of each"
    assert stock.one.startswith("check-hourly: {'until': '2013-12-15', 'airports': ['EWR', ")
    assert set(stock.by_beat) == {"retrain-nightly", "check-hourly", "clean-on-sundays"}
    assert stock.by_beat["retrain-nightly"]["until"] == "2013-12-31"
    assert [day for day, _ in stock.tomorrow] == ["2013-12-25"] * 2
    assert all(200 < departures < 350 for _, departures in stock.tomorrow)


def test_raycelery_does_the_same_without_redis(stock: Run, ray: Run) -> None:
    assert ray == stock


def test_it_runs_by_itself_as_the_readme_tells(ray: Run, tmp_path: Path) -> None:
    alone = projects.on_raycelery(NAME, tmp_path)
    assert alone.says("run_now.py", "--until", "2013-10-31") == ray.nights[0]


def test_a_name_that_is_not_scheduled_is_refused(tmp_path: Path) -> None:
    done = projects.copy(NAME, tmp_path).run("run_now.py", "retrain-nightli")
    assert done.returncode == 2
    assert "retrain-nightli is not on the schedule, which has retrain-nightly, check-hourly" in done.stderr
