"""A network that is cut without a word: each side finds out that the other is out of reach."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raycelery.protocol import questions
from tests import sample
from tests.support import ROOT, RaySession, until

SECONDS = 60
#: A host that talks to the dispatcher, at the end of a cable. Its first argument is how it talks.
HOST = """
import sys, time
from raycelery.client.connection import Client
from raycelery.protocol import framing, questions
from raycelery.protocol.frames import FollowLines, Hello

how, host, port, secret = sys.argv[1:]
client = Client(lambda: framing.Endpoint(host, int(port), bytes.fromhex(secret)), Hello("client"))
client.call(questions.Pending())
if how == "follows":
    client.post(FollowLines(None))
print("connected", flush=True)
sys.stdin.readline()
began = time.monotonic()
if how == "asks":
    try:
        client.call(questions.Pending(), timeout=None)
    except Exception as exc:
        print(f"failed {exc!r}", flush=True)
while client.connected:
    time.sleep(0.1)
print(f"lost after {time.monotonic() - began:.1f} s", flush=True)
"""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="only root may make network namespaces, with iproute2"
)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def cable(number: int) -> Iterator[tuple[str, str]]:
    """A network namespace with a cable to it; yields its name and that of the cable's end here."""
    space, here, there = f"rc{os.getpid()}-{number}", f"rch{os.getpid() % 10**6}{number}", f"rct{number}"
    net = f"10.{200 + number}.{os.getpid() % 250}"
    ip("netns", "add", space)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
        ip("addr", "add", f"{net}.1/24", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", space, "addr", "add", f"{net}.2/24", "dev", there)
        ip("-n", space, "link", "set", there, "up")
        ip("-n", space, "route", "add", "default", "via", f"{net}.1")
        yield space, here
    finally:
        subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)
        ip("netns", "del", space)


def clients() -> int:
    return int(sample.app.client.call(questions.Stats())["clients"])


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("how", ["waits", "asks", "follows"])
def test_a_host_out_of_reach_is_found_out(ray_session: RaySession, tmp_path: Path, how: str) -> None:
    """Also while what is said is not acknowledged: then kernels ask for no sign of life, and go on for 15 minutes."""
    sample.identity.delay(0).get(timeout=SECONDS)
    endpoint = sample.app.client.endpoint
    assert endpoint is not None
    (tmp_path / "host.py").write_text(HOST)
    before = clients()
    with cable(("waits", "asks", "follows").index(how)) as (space, here):
        process = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, str(tmp_path / "host.py"),
             how, endpoint.host, str(endpoint.port), endpoint.secret.hex()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "connected\n"
            until(lambda: clients() == before + 1)
            ip("link", "set", here, "down")
            began = time.monotonic()
            process.stdin.write("cut\n")
            process.stdin.flush()

            def gone() -> bool:
                if how == "follows":
                    sample.chatty.delay("something for it").get(timeout=SECONDS)
                return clients() == before

            until(gone, SECONDS, every=0.5)
            ours = time.monotonic() - began
            *said, lost = [process.stdout.readline() for _ in range(2 if how == "asks" else 1)]
        finally:
            process.kill()
            process.wait()
    assert lost.startswith("lost after ")
    # What is promised is 30 s; what is more is the machine's.
    assert max(ours, float(lost.split()[2])) < 45
    if how == "asks":
        assert "DispatcherUnreachable" in said[0]
