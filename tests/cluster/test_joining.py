"""Clusters as they are started in earnest, tokens and all; and who cannot join one is told why, in a sentence."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.processes import Cluster, environment, run, running
from tests.support import until

APP = """
from raycelery import Celery

app = Celery("shop", broker="redis://localhost:6379/0")


@app.task
def add(x, y):
    return x + y
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with processes.ray_start() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def refused(folder: Path, environ: dict[str, str], kind: str = "DispatcherUnreachable") -> str:
    """Call a task and return with what sentence that is refused."""
    script = """
        import sys, time
        from raycelery import errors
        from shop import add

        began = time.monotonic()
        try:
            add.delay(1, 2)
        except errors.RayCeleryError as exc:
            print(type(exc).__name__)
            print(exc)
    """
    out, err = run(folder, environ, sys.executable, "-c", textwrap.dedent(script))
    name, *said = out.splitlines()
    assert name == kind, out + err
    assert len(said) == 1, "in one sentence"
    assert "InvalidAuthToken" not in err, "Ray is not left to try for itself"
    return said[0]


def test_what_the_documentation_says_works_with_a_token_and_no_mode(cluster: Cluster, folder: Path) -> None:
    assert "Token authentication is enabled" in cluster.said, "by Ray's own default"
    environ = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    out, _ = run(folder, environ, sys.executable, "-c", "from shop import add; print(add.delay(1, 2).get(timeout=60))")
    assert out.split() == ["3"]
    assert "shop" in run(folder, environ, "raycelery", "status", "-A", "shop")[0]
    assert "shop" in run(folder, environ, "raycelery", "top", "-A", "shop", "--looks", "1")[0]
    assert "1 node online" in run(folder, environ, "celery", "-A", "shop", "status")[0]
    out, _ = run(folder, environ, "celery", "-A", "shop", "call", "shop.add", "-a", "[3, 4]")
    assert run(folder, environ, "celery", "-A", "shop", "result", out.split()[-1])[0].split()[-1] == "7"
    assert "nothing is scheduled" in run(folder, environ, "raycelery", "beat", "-A", "shop")[0]
    assert "has ended" in run(folder, environ, "raycelery", "beat", "-A", "shop", "--stop")[0]


def test_another_machine_joins(cluster: Cluster, folder: Path) -> None:
    environ = {**cluster.environment, "RAY_AUTH_MODE": "token"}
    with running(folder, environ, "ray", "start", f"--address={cluster.address}", "--num-cpus=1", "--block") as (
        process,
        log,
    ):
        until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, 200, say=log.read_text)
        script = "import ray; from shop import app; app.session; print(sum(one['Alive'] for one in ray.nodes()))"
        named = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        assert run(folder, named, sys.executable, "-c", script)[0].split()[-1] == "2"


def test_auto_is_the_cluster_of_this_machine(cluster: Cluster, folder: Path) -> None:
    out, _ = run(
        folder, {**cluster.environment, "RAY_ADDRESS": "auto"},
        sys.executable, "-c",
        "import ray; from shop import app; app.session; print(ray.get_runtime_context().gcs_address)",
    )  # fmt: skip
    assert out.split()[-1].endswith(f":{cluster.port}")


def test_a_token_that_is_missing_or_another(cluster: Cluster, folder: Path, tmp_path: Path) -> None:
    def with_token(**env: str) -> str:
        home = tmp_path / "home"
        environ = {**environment(home, cluster.temporary), "RAY_ADDRESS": cluster.address, **env}
        return refused(folder, environ)

    path = tmp_path / "home" / ".ray" / "auth_token"
    path.parent.mkdir(parents=True)
    said = with_token()
    for words in (f"there is none in {path}", "RAY_AUTH_MODE", "ray get-auth-token"):
        assert words in said
    assert f"no token in {path}" in with_token(RAY_AUTH_MODE="token")
    path.write_text("0" * 64)
    said = with_token()
    assert f"the one in {path} (RAY_AUTH_MODE=token) is another" in said
    assert "RAY_AUTH_MODE=disabled sends none: unset RAY_AUTH_MODE" in with_token(RAY_AUTH_MODE="disabled")
    path.write_text("")
    (elsewhere := tmp_path / "elsewhere").write_text((cluster.home / ".ray" / "auth_token").read_text())
    run(
        folder,
        {**environment(tmp_path / "home", cluster.temporary, RAY_AUTH_TOKEN_PATH=str(elsewhere)),
         "RAY_ADDRESS": cluster.address},
        sys.executable, "-c", "from shop import app; app.session",
    )  # fmt: skip


def test_addresses_of_something_else(tmp_path: Path, redis_url: str) -> None:
    script = """
        import http.server, os, sys, threading, time
        from raycelery import Celery
        from raycelery.errors import DispatcherUnreachable, OptionError
        from tests.support import free_port

        web = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=web.serve_forever, daemon=True).start()

        def refused(address, error):
            began = time.monotonic()
            app = Celery("nowhere", set_as_current=False)
            os.environ["RAY_ADDRESS"] = address
            try:
                app.send_task("add")
            except error as exc:
                assert time.monotonic() - began < 50
                return str(exc)
            raise AssertionError(address)

        for address in (f"127.0.0.1:{free_port()}", "no-such-host.invalid:6379"):
            said = refused(address, DispatcherUnreachable)
            assert "no Ray cluster answers" in said and address in said and "ray start --head" in said, said
        for port in (web.server_address[1], int(sys.argv[1])):
            said = refused(f"127.0.0.1:{port}", DispatcherUnreachable)
            assert "not the head node of a Ray cluster" in said and "Redis" in said, said
        for address, what in (("ray://head:10001", "Ray Client"), ("http://head:8265", "dashboard"), ("head", "auto"),
                              ("head:port", "host:port"), ("redis://head:6379", "not the address of a Ray cluster")):
            assert what in refused(address, OptionError)
            try:
                Celery("nowhere", ray_address=address, set_as_current=False)
            except OptionError as exc:
                assert what in str(exc) and "ray_address" in str(exc)
            else:
                raise AssertionError(address)
        print("ok")
    """
    environ = {**os.environ, "PYTHONPATH": str(processes.ROOT)}
    port = redis_url.rpartition(":")[2].partition("/")[0]
    assert run(tmp_path, environ, sys.executable, "-c", textwrap.dedent(script), port)[0].split() == ["ok"]


def test_another_version_on_the_cluster(cluster: Cluster, folder: Path) -> None:
    # Ray compares with what the head has written down when it was started. The last test: nobody can join afterwards.
    change = """
        import json, sys, ray
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        ray.init(sys.argv[1], log_to_driver=False)
        was = json.loads(_internal_kv_get("CLUSTER_METADATA", namespace="cluster"))
        _internal_kv_put("CLUSTER_METADATA", json.dumps({**was, "python_version": sys.argv[2]}), namespace="cluster")
        print(was["python_version"])
    """
    environ = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    change = textwrap.dedent(change)
    given = {**environ, "RAY_AUTH_MODE": "token", "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor"}
    before = run(folder, given, sys.executable, "-c", change, cluster.address, "3.8.1")[0].split()[-1]
    said = refused(folder, environ)
    assert f"runs Ray {_version()} on Python 3.8.1 and this process Ray {_version()} on Python {before}" in said
    assert "run this program with the cluster's" in said


def _version() -> str:
    from importlib.metadata import version

    return version("ray")
