"""A project that uses all that `actors` converts gives the same on plain Ray as on stock Celery with Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool.cli import main
from tests import support

FILES = {
    "celery_app.py": """\
import os

from celery import Celery

app = Celery("shop", include=["tasks"])
app.conf.broker_url = os.environ["URL"]
app.conf.result_backend = os.environ["URL"]
app.conf.broker_connection_retry_on_startup = True
""",
    "models.py": """\
from celery import Task


class Trainer:
    def __init__(self, zone):
        self.zone = zone

    def fit(self, days):
        if days < 0:
            raise ValueError(f"{self.zone} has {days} days")
        self.days = days
        return f"{self.zone}:{self.days}"


class Predicts(Task):
    abstract = True
    _model = None

    def __init__(self):
        self.loads = 0

    @property
    def model(self):
        if self._model is None:
            self.loads += 1
            self._model = {"loaded": True}
        return self._model

    def __call__(self, *args, **kwargs):
        assert self.model["loaded"]
        return self.run(*args, **kwargs)
""",
    "tasks.py": """\
from celery.utils.log import get_task_logger
from celery_app import app
from models import Predicts, Trainer

logger = get_task_logger(__name__)
calls = {}


@app.task
def train(zone, days=7):
    trainer = Trainer(zone)
    return trainer.fit(days)


@app.task(base=Predicts, bind=True)
def predict(self, x):
    return x, self.loads


@app.task
def total(values, factor=1):
    return [len(values) * factor, values]


@app.task(bind=True, max_retries=3)
def again(self, times):
    if self.request.retries < times:
        raise self.retry(countdown=0, exc=OSError(f"tried {self.request.retries} times"))
    return self.request.retries


@app.task(autoretry_for=(OSError,), max_retries=2, default_retry_delay=0)
def flaky(path, times):
    with open(path, "a") as file:
        file.write(".")
    with open(path) as file:
        if len(file.read()) <= times:
            raise OSError("not yet")
    return times


@app.task(bind=True)
def tells(self, x):
    self.update_state(state="PROGRESS", meta={"at": x})
    return self.request.id
""",
    "status.py": """\
from celery.result import AsyncResult


def status(task_id):
    found = AsyncResult(task_id)
    value = found.get(timeout=60, propagate=False)
    return found.state, str(value), found.ready(), found.failed()
""",
    "main.py": """\
import sys

from celery import chain, chord, group
from status import status
from tasks import again, flaky, predict, tells, total, train

scratch = sys.argv[1]


def say(*words):
    print(">", *words)


zones = ["a", "b", "c"]

results = [train.delay(zone, -1 if zone == "b" else 3) for zone in zones]
for zone, result in zip(zones, results):
    try:
        say(zone, result.get(timeout=60))
    except ValueError as error:
        say(zone, type(error).__name__, error)

job = group(train.s(zone) for zone in zones)
models = job.apply_async()
say(models.get(timeout=60), models.successful(), len(models))

header = [train.s(zone, days=1) for zone in zones]
callback = total.s(factor=2)
say(chord(header)(callback).get(timeout=60))
say(chain(train.s("d"), total.s())().get(timeout=60))
say((group([train.s("e"), train.s("f")]) | total.s())().get(timeout=60))
say(train.delay(train.delay("inner").get(timeout=60), days=2).get(timeout=60), train("here"), train.run("run"))

say(sorted({tuple(predict.delay(x).get(timeout=60)) for x in range(4)}))
say(again.delay(2).get(timeout=60), type(again.delay(4).get(timeout=60, propagate=False)).__name__)
say(flaky.delay(scratch + "/one", 2).get(timeout=60))
say(type(flaky.delay(scratch + "/two", 9).get(timeout=60, propagate=False)).__name__)
try:
    again(1)
except OSError as error:
    say("directly:", error)

good, bad = train.delay("g"), train.delay("h", days=-1)
say(status(good.id), status(str(bad)))
told = tells.delay(5)
say(told.get(timeout=60) == told.id, len(told.id), status(told.id)[0])
say(train.AsyncResult(good.id).get(timeout=60))
""",
}


def write(folder: Path) -> Path:
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def run(project: Path, url: str) -> list[str]:
    """What the project says; Ray says something too."""
    scratch = project.with_name(project.name + "-scratch")
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "main.py", str(scratch)],
        cwd=project,
        env={**os.environ, "URL": url, "PYTHONPATH": str(support.ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(">")]


@pytest.mark.timeout(900)
def test_all_that_is_converted_gives_the_same(redis_url: str, tmp_path: Path) -> None:
    stock, migrated = write(tmp_path / "stock"), write(tmp_path / "migrated")
    done = CliRunner().invoke(main, ["actors", "--write", "--jobs", "1", str(migrated)])
    assert "stays on raycelery" not in done.output
    for path in migrated.glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert path.name == "celery_app.py" or "celery" not in "".join(imports).replace("celery_app", ""), path
    assert "TrainerActor" in (migrated / "models.py").read_text()
    with support.stock_worker("celery_app", redis_url, stock, concurrency=2, env={"URL": redis_url}):
        expected = run(stock, redis_url)
    assert len(expected) > 15
    assert run(migrated, "redis://127.0.0.1:1/0") == expected
