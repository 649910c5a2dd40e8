"""Applications as Ray jobs, on a real Job API: what they get, how they end, how they are found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raycelery.launch import LaunchError, NotFound, RunState, Spec, SpecError, attach, load, runs, submit
from raycelery.launch.launching import on_own_cluster
from raycelery.launch.spec import made
from tests import support
from tests.support import ROOT, free_port, short_directory, until

pytestmark = pytest.mark.timeout(240)
PROGRAM = """
import json, os, signal, sys, time
from raycelery import Celery

app = Celery("launched")


@app.task
def add(x, y):
    return x + y


def stop(*_):
    print("asked to end", flush=True)
    sys.exit(0)


print("got", json.dumps([sys.argv[1:], os.environ.get("WHO"), sorted(os.listdir("."))]), flush=True)
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, stop)
    print("waiting", flush=True)
    time.sleep(600)
if "fail" in sys.argv:
    sys.exit(3)
if "many" in sys.argv:
    for number in range(2000):
        print("line", number, "." * 100)
if "greet" in sys.argv:
    import greeting
    print(greeting.VERSION, flush=True)
if "once" in sys.argv and not os.path.exists(sys.argv[-1]):
    open(sys.argv[-1], "w").close()
    sys.exit("the first try fails")
if "some" in sys.argv:
    called = [add.delay(1, y) for y in (2, 3, "x")]
    print("ended", [one.get(timeout=100, propagate=False) for one in called][:2])
if "add" in sys.argv:
    print("sum", add.delay(1, 2).get(timeout=100))
"""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """URL of the dashboard of a cluster of two CPUs."""
    with support.dashboard() as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "program.py").write_text(PROGRAM)
    return tmp_path / "shop"


def spec(folder: Path, *arguments: str, **fields: Any) -> Spec:
    return Spec(entrypoint=["python", "program.py", *arguments], working_dir=str(folder), **fields)


def test_a_program_gets_its_words_as_they_are(folder: Path, dashboard: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    hostile = support.hostile_words(mark)
    run = submit(spec(folder, *hostile, "add", env={"WHO": f"`touch {mark}` $(touch {mark})"}), address=dashboard)
    said = "".join(run.logs(follow=True))
    got, *others = [line for line in said.splitlines() if line.startswith(("got ", "sum "))]
    assert json.loads(got[4:]) == [[*hostile, "add"], f"`touch {mark}` $(touch {mark})", ["program.py"]]
    assert others == ["sum 3"]
    assert run.status().state is RunState.SUCCEEDED
    assert not mark.exists()
    assert run.name in [one.name for one in runs(dashboard)]


def test_nothing_of_the_logs_is_lost_or_told_twice(folder: Path, dashboard: str) -> None:
    run = submit(spec(folder, "many"), address=dashboard)
    said = "".join(run.logs(follow=True)).splitlines()
    assert [int(line.split()[1]) for line in said if line.startswith("line ")] == list(range(2000))
    assert "".join(run.logs()).splitlines() == said


def test_a_program_that_fails(folder: Path, dashboard: str) -> None:
    run = submit(spec(folder, "fail"), address=dashboard)
    status = run.wait(200)
    assert (status.state, status.state.exit_code) == (RunState.FAILED, 1)
    assert "exit code 3" in status.message
    assert status.started is not None
    assert status.ended is not None
    assert status.ended >= status.started


def test_a_run_is_found_and_ended_from_elsewhere(folder: Path, dashboard: str) -> None:
    run = submit(spec(folder, "wait", name="found-again"), address=dashboard)
    until(lambda: "waiting" in "".join(run.logs()), 100)
    with pytest.raises(TimeoutError, match=r"found-again has not ended in 0\.1 s; it is running"):
        run.wait(0.1)
    with pytest.raises(LaunchError, match="there is a run of that name"):
        submit(spec(folder, name="found-again"), address=dashboard)
    found = attach(json.loads(json.dumps(run.to_dict())))
    found.cancel()
    assert run.status().state is RunState.CANCELLED
    assert "asked to end" in "".join(run.logs())
    found.cancel()
    found.delete()
    with pytest.raises(NotFound, match="there is no run 'found-again'"):
        run.status()
    with pytest.raises(NotFound):
        attach(run.to_dict())


def test_two_applications_with_two_versions_of_a_package(folder: Path, dashboard: str, tmp_path: Path) -> None:
    started = []
    for version in ("1", "2"):
        module = tmp_path / version / "greeting"
        module.mkdir(parents=True)
        (module / "__init__.py").write_text(f'VERSION = "greeting {version}"\n')
        started.append(submit(spec(folder, "greet", py_modules=[str(module)]), address=dashboard))
    for version, run in zip(("1", "2"), started, strict=True):
        assert f"greeting {version}" in "".join(run.logs(follow=True)).splitlines()


def test_a_command_line_follows_a_run(folder: Path, dashboard: str) -> None:
    def raycelery(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "raycelery", *arguments], cwd=folder, capture_output=True, text=True, timeout=200,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": dashboard}, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    done = raycelery("submit", "--env", "WHO=me", "--", "python", "program.py", "fail")
    assert done.returncode == 1, done.stderr
    assert '"me"' in done.stdout
    assert "failed" in done.stderr
    late = raycelery("submit", "--timeout", "1", "--", "python", "program.py", "wait")
    assert late.returncode == 4, late.stderr
    started = raycelery("submit", "--no-wait", "--name", "by-hand", "--", "python", "program.py", "wait")
    assert started.stdout == "by-hand\n"
    assert raycelery("job", "cancel", "by-hand").returncode == 0
    waited = raycelery("job", "wait", "by-hand")
    assert waited.returncode == 130, waited.stderr
    listed = json.loads(raycelery("job", "list", "--json").stdout)
    assert next(one["state"] for one in listed if one["name"] == "by-hand") == "cancelled"
    unknown = raycelery("job", "status", "nobody")
    assert unknown.returncode == 5
    assert "there is no run 'nobody'" in unknown.stderr


@pytest.mark.parametrize(("most", "state"), [(0, RunState.FAILED), (1, RunState.SUCCEEDED)])
def test_failed_tasks_decide(folder: Path, dashboard: str, most: int, state: RunState) -> None:
    env = {"RAYCELERY_APP_NAME": f"counted-{most}"}
    run = submit(spec(folder, "some", max_failures=most, progress=60, env=env), address=dashboard)
    said = "".join(run.logs(follow=True)).splitlines()
    assert "ended [3, 4]" in said, said
    assert "raycelery: tasks: 2 done, 1 failed" in said
    assert ("raycelery: 1 tasks have failed, and at most 0 may (max_failures)" in said) is (most == 0)
    assert run.status().state is state


def test_an_application_on_a_cluster_of_its_own(folder: Path) -> None:
    (folder / "app.yaml").write_text("entrypoint: python program.py add\nsecrets: {WHO: {secret: shop, key: who}}\n")
    with short_directory("rc-own-") as ray_directory:
        environ = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        done = subprocess.run(
            [sys.executable, "-m", "raycelery", "submit", "-f", "app.yaml", "--num-cpus", "2"],
            cwd=folder, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL,
            env={**environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(ray_directory), "WHO": "kept here"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"kept here"' in done.stdout
    assert "sum 3" in done.stdout


def test_a_program_that_fails_is_tried_again(folder: Path, dashboard: str, tmp_path: Path) -> None:
    run = submit(spec(folder, "once", str(tmp_path / "mark"), name="again", retries=2), address=dashboard)
    told: list[str] = []
    run.on_change = lambda status: told.append(status.message)
    said = "".join(run.logs(follow=True))
    assert (said.count("the first try fails"), said.count("got ")) == (1, 2)
    assert run.wait(0).state is RunState.SUCCEEDED
    assert len(told) == 1
    assert told[0].startswith("it is tried again: ")
    assert attach(run.to_dict()).name == "again.2"
    tries = {one.name: one.status().state for one in runs(dashboard) if one.name.startswith("again")}
    assert tries == {"again": RunState.FAILED, "again.2": RunState.SUCCEEDED}
    failing = submit(spec(folder, "fail", name="in-vain", retries=1), address=dashboard)
    assert failing.wait(200).state is RunState.FAILED
    failing.delete()
    assert not [one for one in runs(dashboard) if one.name.startswith("in-vain")]


def test_secrets_that_are_not_there_and_a_cluster_that_is_no_place_for_them(folder: Path, dashboard: str) -> None:
    secret = made({"entrypoint": "python program.py", "secrets": {"NOWHERE": {"secret": "shop", "key": "who"}}})
    with pytest.raises(SpecError, match="NOWHERE is no environment variable here"), on_own_cluster(secret):
        pass
    with pytest.raises(SpecError, match="whoever may use it could read them"):
        submit(secret, address=dashboard)


def test_the_address_that_is_given_is_the_one(folder: Path, dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{free_port()}")
    run = submit(spec(folder), address=dashboard)
    assert run.wait(200).state is RunState.SUCCEEDED
    assert "RAY_ADDRESS" in os.environ


def test_a_cluster_that_does_not_answer(folder: Path) -> None:
    with pytest.raises(LaunchError, match="no Ray dashboard answers at") as raised:
        submit(spec(folder), address=f"http://127.0.0.1:{free_port()}")
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"entrypoint": "python x.py", "nmae": "x"}, "no field 'nmae'; did you mean 'name'?"),
        ({"entrypoint": []}, "entrypoint is empty"),
        ({"entrypoint": "python x.py", "name": "Not A Name"}, "is no name of a run"),
        ({"entrypoint": "python x.py", "timeout": 0}, "timeout=0.0 must be a number of seconds above zero"),
        ({"entrypoint": "python x.py", "working_dir": "/nowhere/at/all"}, "is no folder"),
        ({"entrypoint": "python x.py", "pip": ["a"], "uv": ["b"]}, "choose one of them"),
        ({"entrypoint": "python x.py", "env": {"A": 1}}, "Expected `str`, got `int`"),
        ({}, "missing required field `entrypoint`"),
    ],
)
def test_a_wrong_specification_is_refused_by_its_field(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        made(fields)
    assert said in str(raised.value)
    assert raised.value.exit_code == 2


def test_specifications_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[tool.raycelery.app]\nentrypoint = ["python", "-m", "shop"]\nworking_dir = "code"\npip = ["numpy<3"]\n'
    )
    found = load(tmp_path / "pyproject.toml", {"name": "nightly"})
    assert (found.words, found.name) == (["python", "-m", "shop"], "nightly")
    assert found.runtime_env == {"working_dir": str(tmp_path / "code"), "pip": ["numpy<3"]}
    (tmp_path / "bad.yaml").write_text("entrypoint: [\n")
    with pytest.raises(SpecError, match="cannot be read"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(SpecError, match=r"has no table \[tool.raycelery.app\]"):
        load(tmp_path / "other" / "pyproject.toml")
