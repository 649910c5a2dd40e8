"""The disk of the journal is full: calls are refused, what runs comes to its end, and it goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import scripts
from tests.scripts import ROOT

PROGRAM = """
    import os, time
    from pathlib import Path
    from raycelery import Celery
    from raycelery.errors import JournalFull
    from raycelery.protocol import questions

    disk = Path(os.environ["DISK"])
    gate = Path(os.environ["GATE"])
    app = Celery("full", set_as_current=False)
    app.conf.ray_journal = str(disk)

    @app.task
    def wait(number):
        while not gate.exists():
            time.sleep(0.05)
        return number

    @app.task
    def length(text):
        return len(text)

    if __name__ == "__main__":
        assert length.delay("warm").get(timeout=90) == 4
        running = [wait.delay(number) for number in range(200)]
        app.client.call(questions.Pending())
        # Somebody else fills the disk.
        with (disk / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        taken, refused = [], None
        deadline = time.monotonic() + 60
        while refused is None and time.monotonic() < deadline:
            try:
                taken.append(length.delay("x" * 1000))
            except JournalFull as exc:
                refused = str(exc)
        assert refused and str(disk) in refused and "is full" in refused, refused
        # What was taken before goes on, and so do questions.
        gate.touch()
        assert [result.get(timeout=90) for result in running] == list(range(200))
        assert app.client.call(questions.Stats())["pid"]
        (disk / "filler").unlink()
        deadline = time.monotonic() + 60
        while True:
            try:
                again = length.delay("again")
                break
            except JournalFull:
                assert time.monotonic() < deadline, "there is room again"
                time.sleep(0.1)
        assert again.get(timeout=90) == 5
        assert [result.get(timeout=90) for result in taken] == [1000] * len(taken), "what was not refused runs"
        print("ok")
"""


def of_its_own(*command: str) -> list[str]:
    """Return a command that runs another where it may mount a disk of its own."""
    return ["unshare", "--user", "--map-root-user", "--mount", *command]


@pytest.mark.skipif(
    subprocess.run(of_its_own("true"), capture_output=True).returncode != 0,
    reason="this machine allows no mounts in user namespaces",
)
def test_a_full_disk(tmp_path: Path) -> None:
    scripts.write(tmp_path / "script.py", PROGRAM)
    disk = tmp_path / "disk"
    disk.mkdir()
    # Room for what is kept in reserve, and little more.
    command = f"mount -t tmpfs -o size=20m none {disk} && exec {sys.executable} script.py"
    done = subprocess.run(
        of_its_own("sh", "-c", command), capture_output=True, text=True, timeout=scripts.SECONDS, cwd=tmp_path,
        env={**{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
             "PYTHONPATH": str(ROOT), "DISK": str(disk), "GATE": str(tmp_path / "gate")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok" in done.stdout.split(), done.stdout + done.stderr
