"""Retries, errbacks and chords around a flaky source go the same way on stock Celery and on raycelery."""

from __future__ import annotations

import pytest

from tests.legacy_examples.projects import Project

NAME = "flaky_pipeline"
WORKER = "celery_app"
pytestmark = pytest.mark.timeout(400)
Run = tuple[str, dict[str, int]]


def use(project: Project) -> Run:
    """What the pipeline says, and how often the source was asked for each destination."""
    said = project.says("run.py")
    requests = {path.name: path.stat().st_size for path in (project.folder / "state").iterdir() if not path.suffix}
    return said, requests


def test_stock_celery_retries_and_gives_up_as_told(stock: Run) -> None:
    said, requests = stock
    lines = {line.partition(":")[0]: line for line in said.splitlines()}
    assert lines["SEA"].endswith("attempt 1 to fetch, 1 to fit")
    assert lines["ORD"].endswith("attempt 2 to fetch, 1 to fit")
    assert lines["LAX"].endswith("attempt 3 to fetch, 1 to fit")
    assert lines["MIA"].endswith("attempt 1 to fetch, 2 to fit")
    assert lines["HNL"] == "HNL: SourceUnavailable: no answer for HNL; asked 3 times"
    assert lines["LGA"] == "LGA: BadData: LGA has 0 flights: 30 are needed; asked 1 times"
    assert "dead letter: HNL in tasks.fetch after 2 retries: SourceUnavailable('no answer for HNL')" in said
    assert "dead letter: LGA in tasks.clean after 0 retries: BadData('LGA has 0 flights: 30 are needed')" in said
    assert "no report with HNL: FAILURE, ChordError" in said
    assert "noted: ChordError" in said
    # Once more for each of the two chords, HNL three times more.
    assert requests == {"SEA": 3, "MIA": 3, "ORD": 4, "BOS": 4, "LAX": 5, "LGA": 1, "HNL": 6}


def test_raycelery_does_the_same_without_redis(stock: Run, ray: Run) -> None:
    assert ray == stock
