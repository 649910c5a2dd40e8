"""A dispatcher whose journal is gone: its clients tell it again what it needs, and nobody waits for what it forgot."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import ray
from celery.exceptions import WorkerLostError

from raycelery.dispatcher import begun
from raycelery.dispatcher.begun import Place
from raycelery.errors import JournalLost
from raycelery.executor.begun import BegunFile
from raycelery.protocol import questions
from raycelery.protocol.messages import Submission
from raycelery.scheduler.events import UNKNOWN
from tests import scripts
from tests.chaos import work
from tests.support import RaySession, until

SECONDS = 90

PROGRAM = """
    import os, signal, sys
    from pathlib import Path
    from raycelery import Celery
    from raycelery.errors import JournalLost
    from raycelery.protocol import questions

    app = Celery("forgetful", set_as_current=False)
    app.conf.ray_reconnect_seconds = 4.0

    @app.task
    def add(x, y):
        return x + y

    if __name__ == "__main__":
        assert add.delay(1, 2).get(timeout=90) == 3
        later = add.apply_async((1, 2), countdown=3600)
        # Handed over, and acknowledged.
        app.client.call(questions.Pending())
        pid = app.client.call(questions.Stats())["pid"]
        os.kill(pid, signal.SIGSTOP)
        os.unlink(Path(sys.argv[1]) if sys.argv[1:] else Path(os.environ["JOURNAL"]))
        kept = add.delay(3, 4)
        os.kill(pid, signal.SIGKILL)
        assert kept.get(timeout=90) == 7, "what was not acknowledged is sent again, and defined again before"
        assert add.delay(5, 6).get(timeout=90) == 11
        try:
            later.get(timeout=90)
        except JournalLost as exc:
            assert "lost its journal" in str(exc)
            print("ok")
"""


def journal_of(name: str) -> Path:
    return Path(ray._private.worker._global_node.get_session_dir_path()) / "raycelery" / f"{name}.journal"


def test_what_it_does_not_know_any_more_fails(run: scripts.Run) -> None:
    run(PROGRAM, env={"JOURNAL": str(journal_of("forgetful"))})


def test_a_lane_that_nobody_has_defined(ray_session: RaySession) -> None:
    assert work.again.delay("/dev/null", 0, 0.0).get(timeout=SECONDS) == 0
    client = work.app.client
    client.submit(Submission("strange", work.again.name, "celery", "no such lane", b""))
    client.flush()
    with pytest.raises(WorkerLostError, match="not told where"):
        work.app.AsyncResult("strange").get(timeout=SECONDS)
    # Nothing in the journal keeps the dispatcher from being restarted.
    os.kill(client.call(questions.Stats())["pid"], signal.SIGKILL)
    until(lambda: not client.connected, SECONDS)
    assert work.again.delay("/dev/null", 1, 0.0).get(timeout=SECONDS) == 1
    assert issubclass(JournalLost, WorkerLostError), "code that handles lost workers handles it"


def test_what_executors_of_other_nodes_had_begun(ray_session: RaySession, tmp_path: Path) -> None:
    """All nodes of these tests are this machine, where the file would be read at once."""
    file = BegunFile(tmp_path / "begun")
    file.begin(5)
    file.close()
    here, gone = ray.get_runtime_context().get_node_id(), "0" * 56

    async def ask(node: str) -> list[int]:
        return list((await begun.on_node(node, [Place(node, file.path)])).values())

    assert asyncio.run(ask(here)) == [5]
    assert asyncio.run(ask(gone)) == [UNKNOWN], "with its node"
