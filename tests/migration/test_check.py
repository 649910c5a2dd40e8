"""What `check` reports: each use once, with what becomes of it; in four formats."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from migration_tool.cli import main

FILES = {
    "proj/__init__.py": "",
    "proj/app.py": """\
from celery import Celery
from celery.schedules import crontab

app = Celery("proj", broker="redis://", backend="redis://")
app.config_from_object("proj.config", namespace="CELERY")
app.conf.update(worker_concurrency=4, task_time_limit=3)
app.conf["result_expires"] = 5
app.conf.beat_schedule = {"x": {"task": "proj.tasks.f", "schedule": crontab(hour=1)}}
app.steps["worker"].add(object)
""",
    "proj/config.py": "CELERY_BROKER_URL = 'redis://'\nCELERY_TASK_ALWAYS_EAGER = False\nOTHER = 1\n",
    "proj/tasks.py": """\
from celery import group, shared_task
from celery.signals import task_prerun, worker_ready
from celery.task import periodic_task
from proj.app import app


@app.task(bind=True, serializer="pickle")
def f(self, x):
    self.retry()


@shared_task
async def g():
    pass


@worker_ready.connect
def ready(**_):
    app.control.broadcast("mine")


def use():
    result = f.apply_async((1,), exchange="e", countdown=2)
    return group(f.s(1))().get(), result.get(), app.control.inspect().active()
""",
    "proj/views.py": "from proj.tasks import f\n\n\ndef view(delay):\n    delay.delay(1)\n    f.delay(1)\n",
    "Procfile": "web: gunicorn proj\nworker: celery -A proj worker -c 4 -B\n# celery worker\n",
    "Dockerfile": 'FROM x\nCMD ["celery", "-A", "proj", "worker"]\n',
    "compose.yaml": "services:\n  beat:\n    command: celery -A proj beat\n  flower:\n"
    "    command: celery --broker=redis:// flower\n",
    "celery.service": "[Service]\nExecStart=/usr/bin/celery multi start w1 -A proj\n",
    "start": "#!/bin/sh\nexec celery \\\n  -A proj \\\n  worker -l INFO\n",
    "requirements.txt": "celery[redis]\n",
    "README.md": "celery worker\n",
}  # fmt: skip


#: What only looks like a command, or like none.
LOOKS = {
    "start.py": """\
import subprocess
from celery import Celery
from flask_celeryext import FlaskCeleryExt

app = Celery("x")
SAID = "is the celery worker up?"
server = app.backend.client


def start(name):
    subprocess.Popen(["celery", "-A", name, "worker", "-c", "4"])
    subprocess.run(f"exec celery --app {name} beat", shell=True)
""",
    "compose.yml": """\
services:
  celerybeat:
    command: celery -A worker beat
  flower:
    command: celery -A app flower --port=5555
""",
    "Dockerfile": "RUN pip install celery[redis]==5.3 gunicorn\n",
    "environment.yml": "dependencies:\n- pip:\n  - celery==5.4\n",
    "tox.ini": "[testenv]\ndeps =\n    celery==5.4\n",
    "requirements.txt": "celery==5.4\nkombu==4.6.8\n",
    "pyproject.toml": '[project]\nkeywords = ["celery"]\n[tool.uv]\ndev-dependencies = ["celery>=5"]\n',
}


def report(folder: Path, form: str = "json") -> str:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    done = CliRunner().invoke(main, ["check", "--format", form, str(folder)])
    assert done.exit_code == 1, done.output
    return done.stdout


def test_every_use_has_a_verdict(tmp_path: Path) -> None:
    document = json.loads(report(tmp_path))
    found = {
        (Path(one["path"]).name, one["line"], one["kind"], one["name"]): one["verdict"] for one in document["findings"]
    }
    expected = {
        ("app.py", 1, "import", "celery.Celery"): "works",
        ("app.py", 4, "app", "celery.Celery"): "works",
        ("app.py", 4, "setting", "broker_url"): "changes",
        ("app.py", 6, "setting", "worker_concurrency"): "changes",
        ("app.py", 6, "setting", "task_time_limit"): "works",
        ("app.py", 7, "setting", "result_expires"): "works",
        ("app.py", 8, "setting", "beat_schedule"): "changes",
        ("app.py", 9, "app", "steps"): "manual",
        ("config.py", 1, "setting", "CELERY_BROKER_URL"): "changes",
        ("config.py", 2, "setting", "CELERY_TASK_ALWAYS_EAGER"): "works",
        ("tasks.py", 2, "import", "celery.signals.task_prerun"): "works",
        ("tasks.py", 3, "import", "celery.task.periodic_task"): "manual",
        ("tasks.py", 7, "option", "serializer"): "changes",
        ("tasks.py", 8, "task", "f"): "works",
        ("tasks.py", 13, "task", "g"): "manual",
        ("tasks.py", 17, "signal", "worker_ready"): "manual",
        ("tasks.py", 19, "app call", "control.broadcast"): "manual",
        ("tasks.py", 23, "call", "f.apply_async"): "works",
        ("tasks.py", 23, "option", "exchange"): "changes",
        ("tasks.py", 23, "option", "countdown"): "works",
        ("tasks.py", 24, "canvas", "group"): "works",
        ("tasks.py", 24, "app call", "control.inspect"): "changes",
        ("views.py", 6, "call", "f.delay"): "works",
        ("Procfile", 2, "worker", "celery worker"): "manual",
        ("Dockerfile", 2, "worker", "celery worker"): "manual",
        ("compose.yaml", 3, "worker", "celery beat"): "changes",
        ("compose.yaml", 5, "worker", "celery flower"): "changes",
        ("celery.service", 2, "worker", "celery multi"): "manual",
        ("start", 2, "worker", "celery worker"): "manual",
        ("requirements.txt", 1, "dependency", "celery"): "works",
    }
    assert {key: found.get(key) for key in expected} == expected
    assert not [key for key in found if key[:2] in {("views.py", 5), ("Procfile", 3)} or key[0] == "README.md"]
    summary = document["summary"]
    assert (summary["tasks"], summary["skipped"]) == (2, 0)
    assert summary["works"] + summary["changes"] + summary["manual"] == len(document["findings"])
    procfile = next(one for one in document["findings"] if one["path"].endswith("Procfile"))
    assert "worker_concurrency" in procfile["message"]
    assert "beat runs inside this worker" in procfile["message"]


def test_what_only_looks_like_a_command_or_like_none(tmp_path: Path) -> None:
    for name, text in LOOKS.items():
        (tmp_path / name).write_text(text)
    done = CliRunner().invoke(main, ["check", "--format", "json", str(tmp_path)])
    document = json.loads(done.stdout)
    found = [(Path(one["path"]).name, one["line"], one["name"], one["verdict"]) for one in document["findings"]]
    assert [one for one in found if one[3] != "works"] == [
        ("Dockerfile", 1, "celery", "manual"),
        ("compose.yml", 3, "celery beat", "changes"),
        ("compose.yml", 5, "celery flower", "changes"),
        ("environment.yml", 3, "celery", "manual"),
        ("requirements.txt", 2, "kombu", "manual"),
        ("start.py", 3, "flask_celeryext", "manual"),
        ("start.py", 7, "backend.client", "manual"),
        ("start.py", 11, "celery worker", "manual"),
        ("start.py", 12, "celery beat", "changes"),
        ("tox.ini", 3, "celery", "manual"),
    ]
    assert ("pyproject.toml", 4, "celery", "works") in found


def test_annotations_for_github(tmp_path: Path) -> None:
    lines = report(tmp_path, "github").splitlines()
    path = f"{tmp_path}/Procfile"
    assert any(
        line.startswith(f"::warning file={path},line=2,col=9,title=worker celery worker%3A by hand::") for line in lines
    )
    assert all(line.startswith(("::notice ", "::warning ")) for line in lines)


def test_a_page(tmp_path: Path) -> None:
    page = report(tmp_path, "html")
    assert page.startswith("<!doctype html>")
    assert "Procfile</h2>" in page
    assert page.count("<li>") == json.loads(report(tmp_path))["summary"]["works"] + page.count("by hand</span>") + (
        page.count("works, changes</span>")
    )


def test_whatever_a_file_holds_is_text_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "<img src=x>&.py").write_text(
        "from celery import shared_task\n@shared_task(exchange='<b>')\ndef f(): f.delay()\n"
        "x = 'celery -A <i>x</i> worker'\n"
    )
    (tmp_path / "<u>.py").write_text("print '<script>celery'\n")
    done = CliRunner().invoke(main, ["check", "--format", "html", str(tmp_path)])
    assert done.exit_code == 2
    for tag in ("<img", "<u>", "<b>", "<i>", "<script"):
        assert tag not in done.stdout
    assert "&lt;img src=x&gt;&amp;.py" in done.stdout


def test_a_table_ends_with_the_estimate_and_what_is_next(tmp_path: Path) -> None:
    table = report(tmp_path, "table")
    estimate, following = table.splitlines()[-2:]
    assert estimate.startswith(f"{len(FILES) - 1} files, ")
    assert "must be changed by hand" in estimate
    assert following.startswith("Next: ")


def test_variables_made_out_of_each_other_are_no_trap(tmp_path: Path) -> None:
    """Each assignment may give any of the ones before; followed naively, that doubles with every line."""
    lines = "".join(f"    a = b.f{number}(a, b)\n    b = a.g{number}(b)\n" for number in range(60))
    (tmp_path / "a.py").write_text(
        "from celery import shared_task\n\n\n@shared_task\ndef f():\n    a = b = 1\n" + lines + "    return a\n"
    )
    done = CliRunner().invoke(main, ["check", "--format", "json", str(tmp_path)])
    assert json.loads(done.stdout)["summary"]["tasks"] == 1


def test_a_long_text_without_a_command_is_read_in_a_moment(tmp_path: Path) -> None:
    (tmp_path / "deploy.sh").write_text("celery -A x " + "-x 'y' celery " * 20_000 + "\n")
    (tmp_path / "poetry.lock").write_text('name = "celery"\n' * 20_000)
    done = CliRunner().invoke(main, ["check", "--format", "json", str(tmp_path)])
    assert [one["kind"] for one in json.loads(done.stdout)["findings"]] == ["dependency"]
