"""Rays of one's own: inside a program, and kept between runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

from tests.cluster.processes import environment, run, running
from tests.support import free_port, short_directory, until

APP = """
from raycelery import Celery

app = Celery("shop", broker="redis://localhost:6379/0", ray_init={"num_cpus": 2})


@app.task
def add(x, y):
    return x + y
"""
LATER = """
from shop import add

print("sum", add.delay(1, 2).get(timeout=60), flush=True)
add.apply_async((3, 4), countdown=600)
add.apply_async((5, 6), countdown=1000)
"""


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "later.py").write_text(LATER)
    (home := tmp_path / "home").mkdir()
    with short_directory("rc-l-") as temporary:
        yield environment(home, temporary)


def test_a_program_with_a_ray_inside(tmp_path: Path, environ: dict[str, str]) -> None:
    # What a cluster leaves that was killed; and one that runs would be found by its process.
    current = Path(environ["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"
    current.parent.mkdir()
    current.write_text(f"127.0.0.1:{free_port()}")
    with running(tmp_path, environ, sys.executable, "later.py") as (process, log):
        until(lambda: "waiting for" in log.read_text() or process.poll() is not None, 100, say=log.read_text)
        said = log.read_text()
        assert "sum 3" in said
        notice = next(line for line in said.splitlines() if "waiting for" in line)
        assert "2 tasks, 2 scheduled, the first due in 9 min" in notice, notice
        assert "shop.add" in notice
        assert "Ctrl-C ends it now and drops them" in notice
        # It starts sooner, and holds less, without what only a cluster of several machines needs.
        lines = [_line(one) for one in psutil.process_iter(["cmdline"]) if environ["RAY_TMPDIR"] in _line(one)]
        assert any("raylet" in line for line in lines)
        assert not any("monitor.py" in line for line in lines), lines

        out, err = run(tmp_path, environ, "raycelery", "status", "-A", "shop", "--json")
        assert json.loads(out)["scheduled"] == 2
        assert f"later.py, pid {process.pid}" in err, "it says which one it has found"
        # Celery's own commands do not look for one, but tell its address.
        out, err = run(tmp_path, environ, "celery", "-A", "shop", "status", status=None)
        assert "online" not in out
        assert "no cluster is named: set RAY_ADDRESS" in err
        assert f"later.py, pid {process.pid}" in err

        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert process.returncode == -signal.SIGINT, "which shells call 130"
        assert "unfinished tasks are dropped" in log.read_text()
    assert not list((Path(environ["HOME"]) / ".raycelery").rglob("*.json"))


def test_commands_that_look_start_no_ray(tmp_path: Path, environ: dict[str, str]) -> None:
    _, said = run(tmp_path, environ, "raycelery", "status", "-A", "shop", status=2)
    assert "no program on this machine runs 'shop' on a Ray of its own, and no cluster is named: set RAY" in said
    for command in (("inspect", "ping"), ("purge", "-f"), ("result", "0b9e3b6c")):
        out, err = run(tmp_path, environ, "celery", "-A", "shop", *command, status=None)
        assert "no cluster is named" in err + out, command
    script = (
        "from shop import app\nfrom raycelery.errors import DispatcherUnreachable\n"
        "try:\n    app.control.ping()\nexcept DispatcherUnreachable:\n    print('none')"
    )
    assert run(tmp_path, environ, sys.executable, "-c", script)[0].split() == ["none"]
    assert not (Path(environ["RAY_TMPDIR"]) / "ray").exists()


def test_a_cluster_that_is_kept(tmp_path: Path, environ: dict[str, str]) -> None:
    assert "no cluster of 'raycelery up'" in run(tmp_path, environ, "raycelery", "down", status=1)[1]
    with socket.create_server(("", 0)) as taken:
        _, said = run(
            tmp_path, environ, "raycelery", "up", "--port", str(taken.getsockname()[1]), status=1, seconds=200
        )
    assert "is not free" in said
    assert "Traceback" not in said
    try:
        address = run(tmp_path, environ, "raycelery", "up", "--num-cpus", "2", seconds=200)[0].strip()
        assert run(tmp_path, environ, "raycelery", "up")[0].strip() == address, "there is one"
        script = "from shop import add; print(add.delay(1, 2).get(timeout=60))"
        named = {**environ, "RAY_ADDRESS": address}
        assert run(tmp_path, named, sys.executable, "-c", script)[0].split() == ["3"]
        _, err = run(tmp_path, environ, "raycelery", "status", "-A", "shop")
        assert f"{address} (started by 'raycelery up')" in err
        processes = [one for one in psutil.process_iter(["cmdline"]) if environ["RAY_TMPDIR"] in _line(one)]
        assert processes
    finally:
        run(tmp_path, environ, "raycelery", "down")
    until(lambda: not any(one.is_running() and one.status() != "zombie" for one in processes))
    assert "no cluster is named" in run(tmp_path, environ, "raycelery", "status", "-A", "shop", status=2)[1]


def test_a_ray_does_not_wait_for_the_port_of_another(tmp_path: Path, environ: dict[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        for address in ("127.0.0.1", ray.util.get_node_ip_address()):
            with contextlib.suppress(OSError):  # another test's Ray has it
                stack.enter_context(socket.create_server((address, DEFAULT_DASHBOARD_AGENT_LISTEN_PORT)))
        script = "from shop import add; print(add.delay(1, 2).get(timeout=60)); import ray; ray.shutdown()"
        out, err = run(tmp_path, environ, sys.executable, "-c", script)
    assert out.split() == ["3"]
    assert "Traceback" not in err, "Ray is not asked for anything after its end"
    log = Path(environ["RAY_TMPDIR"]) / "ray" / "session_latest" / "logs" / "dashboard_agent.log"
    assert "Loaded" in log.read_text()
    assert "Failed to bind" not in log.read_text()


def _line(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or ())


def test_what_a_program_that_was_killed_has_written_is_removed(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = Path(environ["HOME"]) / ".raycelery" / "clusters"
    folder.mkdir(parents=True)
    left = {"pid": os.getpid(), "created": 1.0, "address": "127.0.0.1:1", "program": "x", "applications": ["shop"]}
    (folder / f"{os.getpid()}.json").write_text(json.dumps(left))
    _, said = run(tmp_path, environ, "raycelery", "status", "-A", "shop", status=2)
    assert "no program on this machine" in said
    assert not list(folder.glob("*.json"))


@pytest.mark.slow  # Ray gives itself 30 s
@pytest.mark.parametrize("starts", [True, False])
def test_a_ray_that_is_slow_to_start(tmp_path: Path, environ: dict[str, str], starts: bool) -> None:
    script = """
        import sys, threading, time
        import psutil
        from raycelery.errors import DispatcherUnreachable
        from shop import add

        def hold_up(starts):
            raylets = []
            while not raylets:
                raylets = [child for child in psutil.Process().children() if child.name() == "raylet"]
                time.sleep(0.01)
            raylets[0].suspend()
            time.sleep(35 if starts else 600)
            raylets[0].resume()

        threading.Thread(target=hold_up, args=(sys.argv[1] == "True",), daemon=True).start()
        try:
            print("sum", add.delay(1, 2).get(timeout=60))
        except DispatcherUnreachable as exc:
            assert len(str(exc).splitlines()) == 1
            print(exc)
    """
    program = (sys.executable, "-c", textwrap.dedent(script), str(starts))
    out, _ = run(tmp_path, {**environ, "RAY_raylet_start_wait_time_s": "150" if starts else "5"}, *program, seconds=300)
    assert "sum 3" in out if starts else "Ray has not started in time on this machine" in out
