"""Schedules: Celery's beat as a process of its own, django-celery-beat's, and beat inside the cluster."""

from __future__ import annotations

import shelve
import socket
import subprocess
import sys
import time
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


def test_a_beat_that_is_killed_sends_each_run_once(ray_session: RaySession, tmp_path: Path) -> None:
    """It is killed when one has been sent, and that was not saved."""
    (tmp_path / "hourly.py").write_text(
        """
import os, signal
from raycelery import Celery
from raycelery.control.beat_scheduler import BeatScheduler
app = Celery("hourly", set_as_current=False)
app.conf.beat_max_loop_interval = 0.2

@app.task(name="hourly.run", ignore_result=True)
def run(path):
    with open(path, "a") as file:
        file.write("ran\\\\n")

path = os.environ["CELERY_HOURLY_FILE"]
app.conf.beat_schedule = {"hourly": {"task": "hourly.run", "schedule": 3600.0, "args": (path,)}}

class Killed(BeatScheduler):
    def _do_sync(self):
        # Of the first one, which ran long ago.
        for entry in self.schedule.values():
            if entry.total_run_count == 1 and os.environ.get("HOURLY_KILL") == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        super()._do_sync()
""".replace("\\\\n", "\\n")
    )
    schedule, ran = tmp_path / "schedule", tmp_path / "ran"
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "CELERY_HOURLY_FILE": str(ran)}
    line = [
        sys.executable, "-m", "celery", "-A", "hourly", "beat", "-l", "INFO", "--pidfile=", "-s", str(schedule),
        "-S", "hourly.Killed",
    ]  # fmt: skip

    def beat(kill: str) -> int:
        env["HOURLY_KILL"] = kill
        with (tmp_path / f"{kill}.log").open("wb") as output:
            process = subprocess.Popen(
                line, cwd=tmp_path, env=environment(ray_session, env), stdout=output, stderr=subprocess.STDOUT
            )
        try:
            if kill == "no":
                until(lambda: "not sent again" in (tmp_path / "no.log").read_text(), 60)
            return process.wait(60 if kill != "no" else 0.01)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait(60)

    # An entry that has never run is due an hour after beat begins: it began an hour ago.
    code = "import shelve,sys,datetime; s=shelve.open(sys.argv[1]); e=s['entries']; " \
           "e['hourly'].last_run_at -= datetime.timedelta(hours=2); s['entries']=e; s.close()"  # fmt: skip
    env["HOURLY_KILL"] = "never"
    first = subprocess.Popen(line, cwd=tmp_path, env=environment(ray_session, env))
    until(lambda: list(tmp_path.glob("schedule*")), 60)
    time.sleep(1)  # it may just be writing
    first.terminate()
    first.wait(60)
    subprocess.run([sys.executable, "-c", code, str(schedule)], check=True, env=environment(ray_session, env))
    assert beat("before") == -9
    until(ran.exists)
    beat("no")
    assert ran.read_text() == "ran\n"
