"""Class-based prediction tasks, `chunks` and a merging `chord` give the same on stock Celery and on raycelery."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.legacy_examples import projects
from tests.legacy_examples.projects import Project

NAME = "batch_scoring"
WORKER = "celery_app"
pytestmark = pytest.mark.timeout(400)
Done = subprocess.CompletedProcess[str]


def use(project: Project) -> Done:
    done = project.run("score.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_stock_celery_scores_all_patients(stock: Done) -> None:
    assert "569 patients in 23 batches: " in stock.stdout
    # 212 of the patients have a malignant tumour.
    counts = [int(number) for number in re.findall(r"(\d+) (?:malignant found|missed)", stock.stdout)]
    assert sum(counts) == 212
    assert counts[0] > 195
    looked_at = [line.partition("... ")[2].split() for line in stock.stdout.splitlines() if "..." in line]
    assert [len(chunk) for chunk in looked_at] == [10] * 4


def test_raycelery_scores_them_equally_without_redis(stock: Done, ray: Done) -> None:
    assert ray.stdout == stock.stdout


def test_a_process_loads_the_model_once(stock: Done, ray: Done) -> None:
    for done in (stock, ray):
        said = re.search(r"loaded (\d+) times in (\d+) processes", done.stderr)
        assert said is not None
        assert said[1] == said[2]


def test_ray_data_scores_patients_equally(stock: Done, tmp_path: Path) -> None:
    done = projects.on_raycelery(NAME, tmp_path, "shim").run("on_ray_data.py")
    assert done.returncode == 0, done.stdout + done.stderr
    looked_at = [line for line in stock.stdout.splitlines() if line.startswith("patients ")]
    assert [line for line in done.stdout.splitlines() if line.startswith("patients ")] == looked_at
