"""``raycelery rightsize`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from raycelery.protocol import questions
from tests.rightsize import project
from tests.support import ROOT, RaySession

pytestmark = pytest.mark.timeout(300)


def command(
    *arguments: str, folder: Path, address: str | None = None, module: str = project.__name__
) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "COLUMNS": "100"}
    if address is not None:
        environment["RAY_ADDRESS"] = address
    return {
        "args": [sys.executable, "-m", "raycelery", "rightsize", "-A", module, *arguments],
        "cwd": folder,
        "env": environment,
        "text": True,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(*arguments, **options), timeout=250)


@pytest.mark.slow  # on a machine whose CPUs others use, a task is not measured as what it is
def test_it_runs_a_sample_of_the_projects_calls(ray_session: RaySession, tmp_path: Path) -> None:
    done = run("--sample", "12", "--total", "1500", "--hosts", "10", "--output", "sizes.json",
               folder=tmp_path, address=ray_session.address)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "measured 24 runs" in done.stderr
    assert "predicted: 1,500 tasks on 10 hosts of 16 CPUs" in done.stdout
    assert "app.conf.task_annotations = {" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

    sizes = json.loads((tmp_path / "sizes.json").read_text())
    # It would be 1 on a machine with nothing else to do.
    assert sizes["tests.rightsize.project.compute"]["num_cpus"] >= 0.5
    assert sizes["tests.rightsize.project.wait"]["num_cpus"] < 0.5
    # Nothing is left of it on the cluster.
    import ray

    named = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert not [name for name in named if "rightsize-tests-rightsize" in name]

    (tmp_path / "tasks.py").write_text(
        "from celery import Celery\n\napp = Celery('x')\n\n\n@app.task(name='tests.rightsize.project.wait')\n"
        "def wait(seconds, cpu=0.0): ...\n"
    )
    subprocess.run(
        [sys.executable, "-m", "raycelery.migrate", "shim", "--write", "--annotate", "sizes.json", "tasks.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True,
    )  # fmt: skip
    assert (
        f"num_cpus={sizes['tests.rightsize.project.wait']['num_cpus']}, memory=" in (tmp_path / "tasks.py").read_text()
    )


@pytest.mark.slow  # on a machine whose CPUs others use, a task is not measured as what it is
def test_it_compares_several_numbers_of_cpus(ray_session: RaySession, tmp_path: Path) -> None:
    done = run("--calls", "tests.rightsize.project:by_name", "--scale", "2,1", "--json", "--workers", "1",
               folder=tmp_path, address=ray_session.address)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    task = report["tasks"]["tests.rightsize.project.wait"]
    assert [step["num_cpus"] for step in task["scaling"]] == [1, 2]
    assert task["scaling"][1]["efficiency"] < 0.8
    assert task["num_cpus"] < 1
    assert task["asks_now"] == {"num_cpus": 0.5, "memory": 0}
    assert report["present"]["tasks_at_once"] == 1


def test_it_measures_what_a_script_runs(ray_session: RaySession, tmp_path: Path) -> None:
    (tmp_path / "train_all.py").write_text(
        "import sys\nfrom tests.rightsize.project import compute, parent\n"
        "results = [compute.delay(0.02) for _ in range(int(sys.argv[1]))]\nparent.delay(0.02)\n"
        "[result.get(timeout=60) for result in results]\nprint('trained')\nsys.exit(int(sys.argv[2]))\n"
    )
    done = run("--script", "train_all.py 3 4", "--json", folder=tmp_path, address=ray_session.address)
    assert done.returncode == 1, done.stderr
    assert "train_all.py 3 4 ended with status 4" in done.stderr
    report = json.loads(done.stdout)
    assert "trained" in done.stderr
    # What its tasks submit is waited for, too.
    assert {name: task["total"] for name, task in report["tasks"].items()} == {
        "tests.rightsize.project.compute": 4,
        "tests.rightsize.project.parent": 1,
    }


def test_a_chord_is_sampled_and_its_callback_counts_once_a_batch(ray_session: RaySession, tmp_path: Path) -> None:
    done = run("--calls", "tests.rightsize.project:night", "--sample", "12", "--total", "1501", "--json",
               "--output", "sizes.json", "--html", "page.html",
               folder=tmp_path, address=ray_session.address)  # fmt: skip
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)["tasks"]
    wait, combine = tasks["tests.rightsize.project.wait"], tasks["tests.rightsize.project.combine"]
    assert (wait["total"], combine["total"]) == (1500, 1)
    assert (wait["sure"]["runs"], combine["sure"]["runs"]) == (12, 1)
    assert 0 <= wait["sure"]["busy_cpus_from"] <= wait["sure"]["busy_cpus_to"]
    assert (wait["written"], combine["written"]) == (True, False)
    # One run tells nothing that should be written down.
    assert list(json.loads((tmp_path / "sizes.json").read_text())) == ["tests.rightsize.project.wait"]
    page = (tmp_path / "page.html").read_text()
    assert "Too few runs: 1 of at least 10" in page
    assert "predicted: 1,501 tasks" in page


def test_nothing_is_written_from_too_few_runs(ray_session: RaySession, tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text("as it was")
    arguments = ("--calls", "tests.rightsize.project:by_name", "--output", "sizes.json")
    done = run(*arguments, folder=tmp_path, address=ray_session.address)
    assert done.returncode == 1
    assert "nothing is written to sizes.json: of no task 10 runs succeeded" in done.stderr
    assert "only 1 run of at least 10 succeeded" in done.stdout
    assert "task_annotations" not in done.stdout
    assert (tmp_path / "sizes.json").read_text() == "as it was"


def test_it_watches_a_live_application(ray_session: RaySession, tmp_path: Path) -> None:
    project.wait.delay(0.05).get(timeout=60)  # its executors are up
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            project.wait.delay(0.05).get(timeout=60)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        done = run("--watch", "10", "--json", folder=tmp_path, address=ray_session.address)
    finally:
        stop.set()
        worker.join()
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["tasks"]["tests.rightsize.project.wait"]
    assert task["total"] >= task["measured"]["runs"] >= 1
    # It goes on, and nobody measures any more.
    before = project.app.client.call(questions.Measured(0)).count
    project.wait.delay(0.01).get(timeout=60)
    assert project.app.client.call(questions.Measured(0)).count == before


def test_ctrl_c_reports_what_was_measured(ray_session: RaySession, tmp_path: Path) -> None:
    arguments = command("--calls", "tests.rightsize.project:many", "--sample", "500", "--json",
                        folder=tmp_path, address=ray_session.address)  # fmt: skip
    process = subprocess.Popen(**arguments)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("measured ") and int(line.split()[1]) >= 3:
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    task = json.loads(output)["tasks"]["tests.rightsize.project.wait"]
    assert task["total"] == 500
    assert 3 <= task["measured"]["runs"] < 500


def test_failed_runs_are_reported(ray_session: RaySession, tmp_path: Path) -> None:
    done = run("--calls", "tests.rightsize.project:failing", folder=tmp_path, address=ray_session.address)
    assert done.returncode == 1
    assert "none of 1 runs succeeded" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calls", "tests.rightsize.project:missing"], "no attribute 'missing'"),
        (["--calls", "nowhere"], "No module named 'nowhere'"),
        (["--watch", "5", "--script", "x.py"], "give only one of"),
        (["--watch", "5"], "no cluster is named"),
        (["--script", "x.py", "--scale", "1,2"], "needs --calls"),
        (["--scale", "one"], "give numbers of CPUs"),
        (["--memory", "lots"], "give an amount such as 64GB"),
        (["--output", "nowhere/sizes.json"], "there is no folder"),
        (["--output", "/dev/null/sizes.json"], "it cannot be written: Not a directory"),
        (["--html", "/dev/null/sizes.html"], "it cannot be written: Not a directory"),
        (["--address", "127.0.0.1:1"], "no Ray cluster answers"),
    ],
)
def test_wrong_use_is_one_clear_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_project_that_is_still_on_celery_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("from celery import Celery\napp = Celery('old')\n")
    done = run(folder=tmp_path, module="old")
    assert done.returncode == 2
    assert "raycelery-migrate shim" in done.stderr


def test_what_others_print_does_not_spoil_the_json(ray_session: RaySession, tmp_path: Path) -> None:
    # Ray prints its notices there too, though not at will.
    (tmp_path / "noisy.py").write_text(
        "import threading, time\n"
        "from raycelery import Celery\n"
        "app = Celery('noisy')\n"
        "print('words of the module')\n"
        "@app.task\n"
        "def nap(seconds):\n"
        "    time.sleep(seconds)\n"
        "def calls():\n"
        "    threading.Timer(0.2, print, ['words of a thread']).start()\n"
        "    return [nap.s(0.05) for _ in range(20)]\n"
    )
    done = run("--json", folder=tmp_path, address=ray_session.address, module="noisy")
    assert done.returncode == 0, done.stderr
    assert "noisy.nap" in json.loads(done.stdout)["tasks"]
    assert "words of the module" in done.stderr
    assert "words of a thread" in done.stderr
