"""Schedules: Celery's beat as a process of its own, django-celery-beat's, and beat inside the cluster."""

from __future__ import annotations

import shelve
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.control.processes import APP, environment, running
from tests.support import ROOT, RaySession, until

pytestmark = pytest.mark.usefixtures("ray_session")

DJANGO = """
import os, sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"], USE_TZ=True, SECRET_KEY="x",
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}}},
)
django.setup()
from raycelery import Celery
app = Celery("dbshop", broker="redis://nowhere.invalid:1/0", set_as_current=False)
app.conf.beat_scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
app.conf.beat_max_loop_interval = 1

@app.task(name="dbshop.tick")
def tick(path):
    with open(path, "a") as file:
        file.write("tick\\n")

def fill(path):
    import json
    from django.core.management import call_command
    from django_celery_beat.models import IntervalSchedule, PeriodicTask
    call_command("migrate", verbosity=0)
    every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="ticking", task="dbshop.tick", interval=every, args=json.dumps([path]))
"""


def ticks(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_celery_beat_publishes_to_ray_and_keeps_its_schedule(ray_session: RaySession, tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    schedule = tmp_path / "schedule"
    line = ("celery", "-A", APP, "beat", "-l", "INFO", "--pidfile=", "-s", str(schedule))
    with running(ray_session, tmp_path, *line, env={"CELERY_SHOP_FILE": str(path)}) as output:
        until(lambda: ticks(path) >= 3, say=output.read_text)
        assert "ray://shop" in output.read_text()
    with shelve.open(str(schedule)) as kept:
        assert kept["entries"]["ticking"].total_run_count >= 3, "it was saved at SIGTERM"


def test_a_schedule_in_djangos_database(ray_session: RaySession, tmp_path: Path) -> None:
    pytest.importorskip("django_celery_beat")
    path = tmp_path / "ticks"
    (tmp_path / "dbshop.py").write_text(DJANGO.format(database=str(tmp_path / "db.sqlite3")))
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    subprocess.run(
        [sys.executable, "-c", f"import dbshop; dbshop.fill({str(path)!r})"],
        env=environment(ray_session, env), check=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    with running(
        ray_session, tmp_path, "celery", "-A", "dbshop", "beat", "-l", "INFO", "--pidfile=", env=env, cwd=tmp_path
    ) as output:
        until(lambda: ticks(path) >= 2, say=output.read_text)
        assert "DatabaseScheduler" in output.read_text()


def raycelery(session: RaySession, *arguments: str, env: dict[str, str], status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "raycelery", *arguments], cwd=ROOT, env=environment(session, env), capture_output=True,
        text=True, timeout=100, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_beat_in_the_cluster_outlives_whoever_started_it(ray_session: RaySession, tmp_path: Path) -> None:
    import ray

    path = tmp_path / "ticks"
    env = {"CELERY_SHOP_FILE": str(path)}
    beat = ("beat", "-A", "tests.control.shop", "-s", str(tmp_path / "schedule"))
    said = raycelery(ray_session, *beat, env=env)
    assert "beat of shop runs on" in said
    try:
        assert "ticking  <freq:" in said
        until(lambda: ticks(path) >= 3)
        # Ray starts it again when its process is lost.
        actor = ray.get_actor("raycelery-beat:shop", namespace="raycelery")
        first = ray.get(actor.describe.remote())["pid"]
        ray.kill(actor, no_restart=False)

        def again() -> bool:
            try:
                return bool(ray.get(actor.describe.remote())["pid"] != first)
            except ray.exceptions.ActorUnavailableError:
                return False

        until(again)
        count = ticks(path)
        until(lambda: ticks(path) >= count + 3)
        assert socket.gethostbyname(ray.get(actor.describe.remote())["node"])
    finally:
        assert "has ended" in raycelery(ray_session, *beat[:3], "--stop", env=env)
    with shelve.open(str(tmp_path / "schedule")) as kept:
        assert kept["entries"]["ticking"].total_run_count >= 3
    assert "no beat of shop runs" in raycelery(ray_session, *beat[:3], "--stop", env=env, status=1)
