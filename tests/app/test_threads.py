"""Threads of the caller's that come and go, as a web server's do."""

from __future__ import annotations

from pathlib import Path

from tests import scripts

APP = """
    from raycelery import Celery

    app = Celery("threads", ray_init={"num_cpus": 2})

    @app.task
    def double(x):
        return 2 * x
"""


def test_ray_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    script = """
        import os, signal, sys, threading
        from mine import double

        asked = threading.Event()
        signal.signal(signal.SIGTERM, lambda *args: asked.set())
        values = []
        first = threading.Thread(target=lambda: values.append(double.delay(1).get(timeout=60)))
        first.start()
        first.join()
        # Needs an executor that is not there yet.
        other = threading.Thread(target=lambda: values.append(double.apply_async((2,), num_cpus=2).get(timeout=60)))
        other.start()
        other.join()
        assert values == [2, 4], values
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(60), "the program's own handler is still there"
        print("ok")
    """
    assert "SIGTERM received" not in scripts.run(tmp_path, script, mine=APP), "nor does Ray print the process's stack"


def test_an_error_at_the_start_reaches_the_thread_that_asked(tmp_path: Path) -> None:
    script = """
        import threading
        from mine import app, double

        app.conf.ray_init = {"no_such_argument": 1}
        raised = []

        def call():
            try:
                double.delay(1)
            except RuntimeError as error:
                raised.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert len(raised) == 1 and "no_such_argument" in raised[0], raised
        print("ok")
    """
    scripts.run(tmp_path, script, mine=APP)
