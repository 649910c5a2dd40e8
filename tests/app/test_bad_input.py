"""What is wrong from outside: no cluster, no such resource, no such module, strangers at the door."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery.exceptions import WorkerLostError

from raycelery import Celery
from raycelery.control import applications
from raycelery.errors import (
    AppLoadError,
    ArgumentError,
    DispatcherUnreachable,
    InfeasibleError,
    MessageError,
    VersionMismatch,
)
from raycelery.protocol import codec, frames, framing, questions
from raycelery.serialization import pickling
from tests import sample, scripts
from tests.scripts import Run
from tests.support import RaySession, until

PROGRAMS = Path(__file__).parent / "programs"

SECONDS = 60

app = Celery("bad_input", ray_infeasible_seconds=2)


@app.task
def echo(value: Any) -> Any:
    return value


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(scripts.run, tmp_path)


# -- no cluster any more ----------------------------------------------------------------------------------------------


def test_a_dispatcher_and_a_ray_that_go_away_for_good(run: Run) -> None:
    run(PROGRAMS / "mortal.py")


# -- no such resource, no such module ----------------------------------------------------------------------------------


def test_a_request_that_no_node_can_hold(ray_session: RaySession) -> None:
    too_much = echo.apply_async((1,), num_cpus=64, resources={"licence": 2})
    other = echo.delay(2)
    assert other.get(timeout=SECONDS) == 2, "others do not wait for it"
    text = r"no node has 64 CPU, 2 licence: the most that any has is 4 CPU, 0 licence; ask for less, or add a node"
    with pytest.raises(InfeasibleError, match=text):
        too_much.get(timeout=SECONDS)
    again = echo.apply_async((1,), memory=30e12)
    with pytest.raises(WorkerLostError, match=r"no node has 1 CPU, 30,000 GB of memory: the most .* GB of memory;"):
        again.get(timeout=SECONDS)
    until(
        lambda: not app.client.call(questions.Stats())["executors"].get("starting"),
        SECONDS,
        "a request is left pending with Ray",
    )


def _project(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder.mkdir()
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(name)


TASKS = "from raycelery import Celery\napp = Celery(__name__)\n@app.task\ndef add(x, y): return x + y\n"


def test_a_module_that_executors_cannot_import(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _project(tmp_path / "gone", "gone_tasks", TASKS, monkeypatch)
    shutil.rmtree(tmp_path / "gone")
    result = module.add.delay(1, 2)
    with pytest.raises(AppLoadError, match=r"gone_tasks:app .*working_dir in ray_runtime_env"):
        result.get(timeout=SECONDS)
    assert "gone_tasks" in result.traceback
    chorded = module.add.chunks([(1, 2), (3, 4)], 1).group() | module.add.s(1)
    with pytest.raises(Exception, match="gone_tasks"):
        chorded.apply_async().get(timeout=SECONDS)


def test_a_module_that_fails_in_executors_only(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"import os\nif os.getpid() != {os.getpid()}: raise RuntimeError('no licence on ' + 'this host')\n{TASKS}"
    module = _project(tmp_path / "picky", "picky_tasks", text, monkeypatch)
    with pytest.raises(AppLoadError, match="RuntimeError: no licence on this host"):
        module.add.delay(1, 2).get(timeout=SECONDS)


def test_an_application_with_json_results_that_executors_cannot_load(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The executor, which has no settings, cannot know what the results of the application are written in.
    text = f"import os\nif os.getpid() != {os.getpid()}: raise RuntimeError('no licence')\n{TASKS}"
    module = _project(tmp_path / "plain", "plain_tasks", text, monkeypatch)
    module.app.conf.result_serializer = "json"
    with pytest.raises(AppLoadError, match="RuntimeError: no licence"):
        module.add.delay(1, 2).get(timeout=SECONDS)


def test_an_attribute_that_is_no_application(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TASKS + "print_app = print\n"
    module = _project(tmp_path / "named", "named_tasks", text, monkeypatch)
    module.app.conf.ray_app = "named_tasks:print_app"
    with pytest.raises(AppLoadError, match=r"ray_app='named_tasks:print_app' leads to .*not a Celery application"):
        module.add.delay(1, 2).get(timeout=SECONDS)


# -- strangers ---------------------------------------------------------------------------------------------------------


def _endpoint() -> framing.Endpoint:
    sample.identity.delay(0).get(timeout=SECONDS)
    found = sample.app.client.endpoint
    assert found is not None
    return found


def _closed(sock: socket.socket) -> bool:
    sock.settimeout(SECONDS)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_who_does_not_know_the_secret_is_refused(ray_session: RaySession) -> None:
    endpoint = _endpoint()
    wrong = framing.Endpoint(endpoint.host, endpoint.port, os.urandom(32))
    with pytest.raises(DispatcherUnreachable, match=r"closed the connection|not this application"):
        framing.connect(wrong)
    for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10, os.urandom(64), b"\0" * 100_000):
        with socket.create_connection((endpoint.host, endpoint.port)) as sock:
            sock.sendall(garbage)
            assert _closed(sock)
    with socket.create_connection((endpoint.host, endpoint.port)) as silent:
        assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3, "one that says nothing holds nobody up"
        assert _closed(silent), "and is shown out"


def _sent(data: Any) -> bytes:
    return struct.pack("!I", len(codec.encode(data))) + codec.encode(data)


def test_what_cannot_be_sent_is_refused_at_the_call(ray_session: RaySession) -> None:
    with pytest.raises(MessageError, match="the name of a task is a string, not 5"):
        sample.app.send_task(5)
    for stamp in (object(), 2**70):
        with pytest.raises(ArgumentError, match=r"'tests\.sample\.add' cannot be sent: .*"):
            sample.add.apply_async((1, 2), stamped_headers=["odd"], odd=stamp)
    assert sample.add.apply_async((1, 2), stamped_headers=["day"], day={1, 2}).get(timeout=SECONDS) == 3


def test_who_speaks_another_version_is_refused(ray_session: RaySession) -> None:
    endpoint = _endpoint()
    with socket.create_connection((endpoint.host, endpoint.port)) as sock:
        said = sock.recv(framing.HEAD_BYTES, socket.MSG_WAITALL)
        assert said == framing.head(), "the dispatcher says its version first"
        sock.sendall(framing.head(codec.VERSION + 1))
        assert _closed(sock)
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3


def test_a_dispatcher_of_another_version_is_named_and_can_be_ended(ray_session: RaySession) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Other:
        """What the dispatcher of another version of raycelery says and does not say."""

        def __init__(self) -> None:
            import threading

            self._server = socket.create_server(("", 0))
            threading.Thread(target=self._greet, daemon=True).start()

        def _greet(self) -> None:
            kept = []
            while True:
                kept.append(self._server.accept()[0])
                kept[-1].sendall(b"raycelery" + (99).to_bytes(2, "big") + bytes(32))

        def endpoint(self) -> tuple[str, int, bytes]:
            return ray.util.get_node_ip_address(), self._server.getsockname()[1], bytes(32)

    options = {"name": "raycelery:outlived", "namespace": "raycelery", "lifetime": "detached"}
    other = Other.options(**options).remote()  # type: ignore[attr-defined]
    assert ray.get(other.endpoint.remote())
    outlived = Celery("outlived", set_as_current=False)
    told = rf"speaks version 99 .* version {codec.VERSION}: .*same raycelery.*'raycelery apps --end NAME'"
    with pytest.raises(VersionMismatch, match=told):
        outlived.send_task("outlived.add")
    applications.end("outlived")
    with pytest.raises(ValueError, match="outlived"):
        ray.get_actor("raycelery:outlived", namespace="raycelery")


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!I", 20) + b"no pickle at all....",
        struct.pack("!I", 0xFFFFFFFF) + b"x" * 100,
        _sent(["NoSuchFrame", 1, 2]),
        _sent(["Ask", 1, ["NoSuchQuestion"]]),
        _sent(["Ask", 1, ["Revoke", "not a list", True]]),
        framing.pack(frames.Stop()),
    ],
    ids=["garbage", "oversize", "kind", "question", "type", "direction"],
)
def test_nonsense_of_who_knows_the_secret_ends_its_connection_at_most(ray_session: RaySession, sent: bytes) -> None:
    sock = framing.connect(_endpoint())
    sock.sendall(sent)
    assert sample.add.delay(1, 2).get(timeout=SECONDS) == 3
    sock.shutdown(socket.SHUT_WR)
    assert _closed(sock)
    assert sample.add.delay(3, 4).get(timeout=SECONDS) == 7


def test_a_message_that_is_too_large_is_refused_at_the_call(
    ray_session: RaySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickling, "MOST_BYTES", 1_000_000)
    with pytest.raises(ArgumentError, match=r"argument of 'tests\.app\.test_bad_input\.echo' takes \d+ bytes"):
        echo.delay([np.ones(10_000) for _ in range(20)])
    with pytest.raises(ArgumentError, match="takes"):
        echo.delay([f"{number:09}" for number in range(200_000)])
    assert len(echo.delay([np.ones(1_000) for _ in range(20)]).get(timeout=SECONDS)) == 20
    with pytest.raises(ValueError, match="larger than"):
        framing.Unpacker(frames.to_dispatcher).feed(struct.pack("!I", framing.FRAME_BYTES + 1))
    assert sys.getsizeof(framing.pack(frames.Stop())) < 100
