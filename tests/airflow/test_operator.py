"""``RayCeleryOperator`` and plain tasks of Airflow, on a real Airflow and a real Ray. Airflow brings uvloop along."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is not installed; tox -e airflow has it")

from raycelery.launch import RunState, Spec, attach, submit
from tests.support import ROOT, until

pytestmark = pytest.mark.timeout(300)
PROGRAM = """
import sys, time
from raycelery import Celery

app = Celery("trained")


@app.task
def add(x, y):
    return x + y


print("for", sys.argv[1:], flush=True)
if "wait" in sys.argv:
    time.sleep(600)
if "fail" in sys.argv:
    sys.exit(3)
print("sum", add.delay(1, 2).get(timeout=100))
"""
DAG = """
import json, os, sys
from datetime import datetime, timezone
from airflow.sdk import DAG, task
from raycelery.contrib.airflow import RayCeleryOperator

with DAG("nightly", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None) as dag:
    trained = RayCeleryOperator(
        task_id="train",
        spec={"entrypoint": ["python", "program.py", "{{ ds }}", *sys.argv[1:]], "working_dir": os.environ["SHOP"]},
    )

    @task
    def report(run):
        from raycelery.launch import Spec, attach, submit

        before = "".join(attach(run).logs())
        once_more = submit(Spec(entrypoint=["python", "program.py", "again"], working_dir=os.environ["SHOP"]))
        return "sum 3" in before and "sum 3" in "".join(once_more.logs(follow=True))

    report(trained.output)

if __name__ == "__main__":
    run = dag.test()
    told = {one.task_id: [str(one.state), one.xcom_pull("report")] for one in run.get_task_instances()}
    print("TOLD", json.dumps(told))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "program.py").write_text(PROGRAM)
    return tmp_path / "shop"


def dag_test(home: Path, shop: Path, dashboard: str, *arguments: str) -> str:
    (home / "dags").mkdir(exist_ok=True)
    path = home / "dags" / "nightly.py"
    path.write_text(textwrap.dedent(DAG))
    done = subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=250, cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": dashboard, "SHOP": str(shop)},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_dag_with_the_operator_and_with_a_plain_task(airflow_home: Path, shop: Path, dashboard: str) -> None:
    said = dag_test(airflow_home, shop, dashboard)
    told = [line for line in said.splitlines() if line.startswith("TOLD ")]
    assert told, said
    assert '"train": ["success", true]' in told[0]
    assert '"report": ["success", true]' in told[0]
    # The specification is a template, and what the program prints is in the task's log.
    assert "for ['20" in said


def test_an_application_that_fails_fails_its_task(airflow_home: Path, shop: Path, dashboard: str) -> None:
    said = dag_test(airflow_home, shop, dashboard, "fail")
    assert "failed: Job entrypoint command failed with exit code 3" in said
    assert '"train": ["failed"' in said


def operator(shop: Path, dashboard: str, *arguments: str) -> Any:
    from raycelery.contrib.airflow import RayCeleryOperator

    spec = {"entrypoint": ["python", "program.py", *arguments], "working_dir": str(shop)}
    return RayCeleryOperator(task_id="train", spec=spec, address=dashboard)


def test_a_task_that_is_tried_again_follows_the_run_that_goes_on_and_ends_it_when_it_is_killed(
    shop: Path, dashboard: str
) -> None:
    from raycelery.contrib.airflow import name_of

    instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=2)
    name = name_of(instance)
    first = submit(
        Spec(entrypoint=["python", "program.py", "wait"], working_dir=str(shop), name=name), address=dashboard
    )
    until(lambda: first.status().state is RunState.RUNNING, 100)
    began = first.status().started
    tried = operator(shop, dashboard, "wait")
    raised: list[BaseException] = []

    def execute() -> None:
        try:
            tried.launch(instance)
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=execute)
    thread.start()
    until(lambda: tried._launched is not None, 100)
    tried.on_kill()
    thread.join(100)
    assert f"the run {name} cancelled" in str(raised[0])
    assert attach({"backend": "ray", "address": dashboard, "name": name}).status().started == began
    # The next one finds that it has ended, and begins anew.
    assert operator(shop, dashboard).launch(instance)["name"] == name
