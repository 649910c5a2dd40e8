"""Celery's command line and ours on an application in direct mode, as a user types them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raycelery.protocol import questions
from tests import records
from tests.control import shop
from tests.control.processes import APP, command, environment
from tests.support import ROOT, RaySession, stop, until

SECONDS = 60
NODE = f"celery@{socket.gethostname()}"


@pytest.fixture
def held(ray_session: RaySession, tmp_path: Path) -> Iterator[Any]:
    path = str(tmp_path / "held")
    result = shop.hold.delay(path)
    records.wait_for_file(path)
    yield result
    Path(f"{path}.go").touch()
    result.get(timeout=SECONDS, propagate=False)


def test_status_and_inspect(ray_session: RaySession, held: Any) -> None:
    said = command(ray_session, "celery", "status")
    assert f"{NODE}: OK" in said
    assert "1 node online" in said
    active = json.loads(command(ray_session, "celery", "inspect", "active", "--json"))
    assert [one["id"] for one in active[NODE]] == [held.id]
    assert "* shop.fail [rate_limit=9/s]" in command(ray_session, "celery", "inspect", "registered", "rate_limit")


def test_control(ray_session: RaySession, held: Any) -> None:
    assert "new rate limit set" in command(ray_session, "celery", "control", "rate_limit", "shop.fail", "5/s")
    said = command(ray_session, "celery", "control", "terminate", "KILL", held.id)
    assert f"terminate: {held.id}" in said
    until(lambda: held.state == "REVOKED")
    command(ray_session, "celery", "control", "mine", status=2)


def test_call_result_purge_and_bindings(ray_session: RaySession) -> None:
    task_id = command(ray_session, "celery", "call", "shop.add", "-a", "[3, 4]").split()[-1]
    assert command(ray_session, "celery", "result", task_id).split()[-1] == "7"
    shop.app.control.cancel_consumer("later")
    waiting = [shop.add.apply_async((1, 2), queue="later") for _ in range(3)]
    until(lambda: shop.app.client.call(questions.Messages("", [waiting[-1].id])))
    assert "Purged 3 messages" in command(ray_session, "celery", "purge", "-f", "-Q", "later")
    shop.app.control.add_consumer("later")
    assert "celery" in command(ray_session, "celery", "list", "bindings")


def test_there_is_no_worker_to_start(ray_session: RaySession) -> None:
    said = command(ray_session, "celery", "worker", status=1)
    assert "there is no worker to start" in said
    assert "ray_mode='bridge'" in said


def test_our_status_and_top(ray_session: RaySession, held: Any) -> None:
    shop.app.control.cancel_consumer("nights")
    waiting = shop.add.apply_async((1, 2), queue="nights", num_cpus=0.5)
    try:
        overview = json.loads(command(ray_session, "raycelery", "status", "--json"))
        assert [one["id"] for one in overview["running"]] == [held.id]
        [node] = overview["nodes"]
        assert (node["hostname"], node["cpus"]) == (NODE, 4.0)
        assert 0 <= node["cpu_percent"] <= 100
        assert 0 < node["memory_used"] < node["memory_total"]
        [queue] = [queue for queue in overview["queues"] if queue["name"] == "nights"]
        assert (queue["waiting"], queue["running"], queue["limit"]) == (1, 0, 0)
        assert {"CPU": 0.5} in [lane["request"] for lane in overview["lanes"]]
        said = command(ray_session, "raycelery", "top", "--looks", "2", "-n", "0.2")
        for words in (NODE, "nights", "cancelled", "0.5 CPU", "shop.hold", "/s", "1 waiting"):
            assert words in said
        assert "shop.hold" in command(ray_session, "raycelery", "status")
        said = command(ray_session, "raycelery", "status", "--why", waiting.id)
        assert said == "It waits for queue 'nights' to be let run: its max_concurrency is 0.\n"
        said = command(ray_session, "raycelery", "status", "--why", held.id)
        assert f"on node {NODE}" in said
        assert "It is not known here" in command(ray_session, "raycelery", "status", "--why", "nobody")
    finally:
        shop.app.control.add_consumer("nights")
    assert waiting.get(timeout=SECONDS) == 3
    said = command(ray_session, "raycelery", "status", "--why", waiting.id)
    assert said == "It does not wait: its state is SUCCESS.\n"


def test_what_is_shown_of_strangers_texts(ray_session: RaySession, tmp_path: Path) -> None:
    """Neither is it markup, nor does it steer the terminal, nor is what looks like a credential in it."""
    (tmp_path / "[").mkdir()
    path = str(tmp_path / "[" / "etc]")
    running = shop.hold.delay(path)
    records.wait_for_file(path)
    shop.app.control.cancel_consumer("nights")
    secrets = {"env_vars": {"SHOP_URL": "not-for-others", "SHOP_SECRET": "not-for-others"}}
    waiting = shop.add.apply_async((1, 2), queue="nights", runtime_env=secrets)
    failed = shop.fail.delay("\x1b[2J[/bold] password='not-for-others' amqp://shop:not-for-others@broker//")
    try:
        assert "not-for-others" in str(failed.get(timeout=SECONDS, propagate=False)), "callers see all of it"
        for shown in (
            command(ray_session, "raycelery", "status"),
            command(ray_session, "raycelery", "status", "--json"),
            command(ray_session, "raycelery", "failures", "-v"),
            command(ray_session, "raycelery", "failures", "--json"),
        ):
            assert "not-for-others" not in shown
            assert "\x1b" not in shown
        status = command(ray_session, "raycelery", "status")
        assert "[/etc]" in status
        assert "[/bold] password='********' amqp://shop:********@broker//" in status
        lanes = json.loads(command(ray_session, "raycelery", "status", "--json"))["lanes"]
        told = [lane["runtime_env"]["env_vars"] for lane in lanes if lane["runtime_env"]]
        assert told == [{"SHOP_URL": "********", "SHOP_SECRET": "********"}], "names stay"
    finally:
        Path(f"{path}.go").touch()
        waiting.revoke()
        shop.app.control.add_consumer("nights")
        running.get(timeout=SECONDS)


def test_top_takes_keys(ray_session: RaySession, held: Any) -> None:
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 80, 0, 0))
    line = [sys.executable, "-m", "raycelery", "top", "-A", APP]
    process = subprocess.Popen(
        line, cwd=ROOT, env={**environment(ray_session), "TERM": "xterm"}, stdin=terminal, stdout=terminal,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(terminal)
    seen = bytearray()

    def until_it_shows(*texts: str) -> str:
        def shows() -> bool:
            while select.select([screen], [], [], 0)[0]:
                seen.extend(os.read(screen, 65536))
            return all(text.encode() in seen for text in texts)

        until(shows, say=lambda: seen.decode(errors="replace"))
        found = seen.decode(errors="replace")
        seen.clear()
        return found

    try:
        until_it_shows("shop.hold", "longest first", "q quit")
        os.write(screen, b"s")
        until_it_shows("sort: latest first", "shop.hold")
        os.write(screen, b"/nothing like it\r")
        until_it_shows("filter: nothing like it")
        assert "shop.hold" not in until_it_shows("filter: nothing like it")
        os.write(screen, b"\x1b")
        until_it_shows("shop.hold")
        os.write(screen, b"q")
        assert process.wait(SECONDS) == 0
    finally:
        stop(process, 10)
        os.close(screen)


def test_our_commands_say_what_is_wrong(ray_session: RaySession) -> None:
    assert "there is no application at 'nowhere'" in command(
        ray_session, "raycelery", "status", app="nowhere", status=2
    )
