"""`raycelery bench` as a user runs it: real Redis, real workers, real Ray; nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import workloads
from bench.work import Settings
from tests.support import ROOT, until

pytestmark = pytest.mark.timeout(300)
_MARK = "RAYCELERY_TEST_MARK"
COMMAND = [sys.executable, "-m", "raycelery", "bench", "--concurrency", "2", "--repeat", "1", "--quick"]


class Bench:
    """A run in a folder of its own; its processes carry a mark by which they are found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, _MARK: self.mark, "PYTHONPATH": path}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "--out", "out", *arguments], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> tuple[str, dict[str, Any]]:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=280)
        assert process.returncode == code, output + errors
        assert "Traceback" not in output + errors
        written = self.folder / "out" / "report.json"
        return output + errors, json.loads(written.read_text()) if written.exists() else {}

    def processes(self) -> list[psutil.Process]:
        """All that carry the mark; Redis writes over its environment, so it is not among them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def module(self, text: str) -> None:
        (self.folder / "my_benchmark.py").write_text(textwrap.dedent(text))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _turns(report: dict[str, Any], workload: str) -> dict[str, dict[str, Any]]:
    trial = next(trial for trial in report["trials"] if trial["workload"] == workload)
    assert trial["problem"] is None
    return {turn["system"]: turn for turn in trial["turns"]}


def test_it_measures_celery_raycelery_and_ray(bench: Bench) -> None:
    output, report = bench.run("--workload", "noop")
    turns = _turns(report, "noop")
    assert list(turns) == ["celery", "raycelery", "ray"]
    for turn in turns.values():
        calls = turn["calls"]
        assert len(calls["submitted"]) == 300
        assert all(s <= b <= e for s, b, e in zip(calls["submitted"], calls["started"], calls["ended"], strict=True))
        assert len(set(calls["slot"])) <= 2
        assert turn["usage"]["cpu"][-1] > 0
        assert max(turn["usage"]["memory"]) > 20_000_000
    assert "six times better than celery" in output
    assert (bench.folder / "out" / "report.html").stat().st_size > 1_000_000
    assert report["machine"]["versions"]["celery"]
    assert bench.processes() == []


PROJECT = """
    import time
    from celery import Celery

    app = Celery("shop", broker="redis://nowhere.invalid/0")

    @app.task(bind=True, num_cpus=0.5)
    def price(self, item):
        time.sleep(0.05)
        return {"item": item, "price": len(item), "task": self.name}
"""


@pytest.mark.slow
def test_a_project_of_ones_own_is_measured(bench: Bench) -> None:
    (bench.folder / "shop.py").write_text(textwrap.dedent(PROJECT))
    bench.module("""
        from raycelery.bench import call
        from shop import price

        def calls(quick):
            return [call(price, "x" * number) for number in range(1, 21)]

        def check(values):
            assert [value["price"] for value in values] == list(range(1, 21))
    """)
    _, report = bench.run("--module", "my_benchmark", "--system", "celery,raycelery")
    turns = _turns(report, "own")
    assert turns["celery"]["digest"] == turns["raycelery"]["digest"]
    # Two at once on Celery's two workers; what asks for half a CPU runs four at a time on two.
    assert len(set(turns["celery"]["calls"]["slot"])) == 2
    assert len(set(turns["raycelery"]["calls"]["slot"])) > 2


def test_tasks_that_need_no_cpu_are_measured_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "light_benchmark.py").write_text(
        "from raycelery.bench import call\nnum_cpus = 0\n"
        "def calls(quick):\n    return [call(print), call(print, num_cpus=0.0)]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = workloads.load("own")(Settings(concurrency=2, module="light_benchmark"))
    fleet = own.fleet("raycelery")
    assert fleet.slots == 2
    assert {fleet.num_cpus_of(one) for one in own.calls("raycelery")} == {0}


def test_different_results_are_not_compared(bench: Bench) -> None:
    bench.module("""
        import sys
        from raycelery.bench import call

        def where(number):
            return "ray" in sys.modules

        def calls(quick):
            return [call(where, number) for number in range(4)]
    """)
    output, report = bench.run("--module", "my_benchmark", "--system", "celery,raycelery", code=1)
    assert "results differ, so nothing is compared: celery is unlike raycelery" in " ".join(output.split())
    assert report["trials"][0]["problem"]


@pytest.mark.parametrize("what", ["raise ValueError('broken')", "return 3"])
def test_wrong_results_and_failures_are_told(bench: Bench, what: str) -> None:
    bench.module(f"""
        from raycelery.bench import call

        def work(number):
            {what}

        def calls(quick):
            return [call(work, 1)]

        def check(values):
            assert values == [1], "not one"
    """)
    output, _ = bench.run("--module", "my_benchmark", "--system", "celery", code=1)
    assert ("broken" if "raise" in what else "not one") in output
    assert bench.processes() == []


@pytest.mark.parametrize(("system", "process"), [("celery", "redis-server"), ("raycelery", "raylet")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(bench: Bench, system: str, process: str, number: int) -> None:
    started = bench.start("--workload", "zones", "--system", system)
    tree: list[psutil.Process] = []

    def is_up() -> bool:
        tree[:] = psutil.Process(started.pid).children(recursive=True)
        return any(_name(child) == process for child in tree)

    until(is_up, say=started.communicate)
    started.send_signal(number)
    _, errors = started.communicate(timeout=60)
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert started.returncode == 130, errors
        assert "workloads that were finished are reported" in errors
        assert [*bench.processes(), *filter(_runs, tree)] == []
    else:
        until(lambda: not (bench.processes() or any(map(_runs, tree))), say=bench.processes)


def _name(process: psutil.Process) -> str | None:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workload", "nope"], "unknown workload nope"),
        (["--system", "nope"], "unknown system nope"),
        (["--workload", "own"], "needs --module"),
        (["compare", "missing.json", "missing.json"], "does not exist"),
        (["compar", "a.json", "b.json"], "did you mean 'compare'?"),
        (["--out", "/dev/null/out"], "the folder cannot be made"),
    ],
)
def test_wrong_use_is_one_clear_sentence(bench: Bench, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "raycelery", "bench", *arguments]
    done = subprocess.run(command, cwd=bench.folder, env=bench.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_all_workloads_and_systems_are_listed(bench: Bench) -> None:
    output, _ = bench.run("--list")
    assert all(name in output for name in workloads.NAMES)
    assert "dramatiq" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(workloads.NAMES) - {"noop", "own"}))
def test_every_workload_runs(bench: Bench, name: str) -> None:
    _, report = bench.run("--workload", name)
    turns = _turns(report, name)
    assert {"celery", "raycelery"} <= set(turns)
    assert bench.processes() == []


@pytest.mark.slow
def test_every_system_runs(bench: Bench) -> None:
    _, report = bench.run("--workload", "noop,roundtrip", "--system", "all")
    assert len(_turns(report, "noop")) == len(_turns(report, "roundtrip")) == 7
    assert bench.processes() == []
