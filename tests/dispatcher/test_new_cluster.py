"""A journal in a folder that outlives the cluster: the next cluster goes on where the last one was."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import scripts
from tests.scripts import ROOT
from tests.support import RaySession

SECONDS = 100

APPLICATION = """
    import os, time
    from celery import chord
    from raycelery import Celery

    app = Celery(os.environ["NAME"], set_as_current=False)
    app.conf.ray_journal = os.environ["JOURNAL"]
    app.conf.ray_durability = "node"
    app.conf.result_expires = 3600
    app.conf.ray_env_vars = ["JOURNAL", "NAME"]

    @app.task
    def note(name, wait_for=None):
        with open(os.environ["JOURNAL"] + "/ran", "a") as file:
            file.write(name + "\\n")
        while wait_for and not os.path.exists(wait_for):
            time.sleep(0.05)
        return name

    @app.task
    def collect(names):
        return sorted(names)
"""
FIRST = """
    import sys, time
    from raycelery.protocol import questions
    from application import app, chord, collect, note, os

    if __name__ == "__main__":
        ended = note.apply_async(("ended",), task_id="ended")
        assert ended.get(timeout=90) == "ended"
        note.apply_async(("eta",), task_id="eta", countdown=20)
        note.apply_async(("revoked",), task_id="revoked", countdown=20)
        app.control.revoke("revoked")
        app.client.call(questions.SetLimit("queue:closed", 0))
        note.apply_async(("queued",), task_id="queued", queue="closed")
        half = [note.s("header-1"), note.s("header-2").set(countdown=20)]
        chord(half, collect.s().set(task_id="body")).apply_async()
        deadline = time.monotonic() + 60
        while "header-1" not in open(os.environ["JOURNAL"] + "/ran").read() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        app.client.call(questions.Pending())
        print("ready", flush=True)
        time.sleep(600)
"""
SECOND = """
    from raycelery.protocol import questions
    from application import app, os
    from celery.exceptions import TaskRevokedError

    if __name__ == "__main__":
        assert app.AsyncResult("ended").get(timeout=90) == "ended"
        assert app.AsyncResult("eta").get(timeout=90) == "eta"
        assert app.AsyncResult("body").get(timeout=90) == ["header-1", "header-2"]
        try:
            app.AsyncResult("revoked").get(timeout=90)
        except TaskRevokedError:
            pass
        else:
            raise AssertionError("it was revoked")
        assert app.AsyncResult("queued").state == "PENDING", "its queue is still closed"
        app.client.call(questions.RestoreLimit("queue:closed"))
        assert app.AsyncResult("queued").get(timeout=90) == "queued"
        ran = open(os.environ["JOURNAL"] + "/ran").read().split()
        assert sorted(ran) == ["ended", "eta", "header-1", "header-2", "queued"], ran
        print("ok")
"""


@contextlib.contextmanager
def program(folder: Path, name: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program with a Ray of its own; at the end the whole cluster is killed at once."""
    environ = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, f"{name}.py"], cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "NAME": "outlives", **env},
    )  # fmt: skip
    try:
        yield process
    finally:
        whole = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in whole:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(whole, timeout=30)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
def test_a_new_cluster_takes_the_application_up_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "volume"
    journal.mkdir()
    scripts.write(tmp_path / "application.py", APPLICATION)
    scripts.write(tmp_path / "first.py", FIRST)
    with program(tmp_path, "first", JOURNAL=str(journal)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
    scripts.run(
        tmp_path,
        SECOND,
        env={"JOURNAL": str(journal), "NAME": "outlives", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )


@pytest.mark.slow
def test_two_dispatchers_never_write_one_journal(ray_session: RaySession, tmp_path: Path) -> None:
    journal = tmp_path / "volume"
    journal.mkdir()
    scripts.write(tmp_path / "application.py", APPLICATION)
    scripts.write(
        tmp_path / "holds.py",
        """
        import time
        from application import note

        if __name__ == "__main__":
            note.delay("one").get(timeout=90)
            print("ready", flush=True)
            time.sleep(600)
        """,
    )
    with program(tmp_path, "holds", JOURNAL=str(journal), RAY_ADDRESS=ray_session.address) as holds:
        assert holds.stdout is not None
        assert holds.stdout.readline() == "ready\n"
        scripts.run(
            tmp_path,
            """
            import os
            from application import note
            from raycelery.errors import DispatcherUnreachable

            if __name__ == "__main__":
                try:
                    note.delay("two")
                except DispatcherUnreachable as exc:
                    assert "is in use by the dispatcher on" in str(exc), exc
                    assert open(os.environ["JOURNAL"] + "/ran").read().split() == ["one"]
                    print("ok")
            """,
            env={"JOURNAL": str(journal), "NAME": "outlives", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        )


def test_a_dispatcher_whose_journal_was_taken_over_ends(ray_session: RaySession, tmp_path: Path) -> None:
    """A volume may give the lock to another cluster while the network is cut."""
    journal = tmp_path / "volume"
    scripts.write(tmp_path / "application.py", APPLICATION)
    scripts.run(
        tmp_path,
        """
        import os, shutil
        from application import app, note
        from raycelery.protocol import questions

        if __name__ == "__main__":
            assert note.delay("one").get(timeout=90) == "one"
            path = os.environ["JOURNAL"] + "/raycelery/taken.journal"
            pid = app.client.call(questions.Stats())["pid"]
            shutil.copy(path, path + ".copy")
            os.replace(path + ".copy", path)
            # It acknowledges this no more; the one that is started in its place does.
            assert note.delay("two").get(timeout=90) == "two"
            assert app.client.call(questions.Stats())["pid"] != pid
            print("ok")
        """,
        address=ray_session.address,
        env={"JOURNAL": str(journal), "NAME": "taken", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
