"""Applications, tasks and helpers that no import brings: scripts, notebooks, factories, closures."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import ROOT, RaySession

SECONDS = 100


@pytest.fixture
def run(ray_session: RaySession, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return a function that runs a script in a process of its own, which must print ``ok``."""

    def start(script: str, **modules: str) -> str:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        env = {**os.environ, "RAY_ADDRESS": ray_session.address, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "script.py"], env=env, capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path
        )
        assert done.returncode == 0 and "ok" in done.stdout.split(), done.stdout + done.stderr
        return done.stdout

    return start


def test_a_script_with_everything_in_it(run) -> None:  # type: ignore[no-untyped-def]
    run("""
        import dataclasses, os
        from raycelery import Celery
        from celery import Task, chain, chord, group, shared_task

        app = Celery("script", broker="redis://nowhere:1", backend="redis://nowhere:1")
        RATE = 3
        cache = {}

        class ZoneError(Exception):
            def __init__(self, zone, code):
                super().__init__(zone, code)
                self.zone, self.code = zone, code

        @dataclasses.dataclass
        class Zone:
            name: str
            trips: int

        def helper(x):
            return other_helper(x) * RATE

        def other_helper(x):
            return x + 1

        class Base(Task):
            def on_success(self, retval, task_id, args, kwargs):
                cache["last"] = retval

        @app.task(base=Base)
        def compute(x):
            return helper(x)

        @app.task
        def make(name):
            return Zone(name, RATE)

        @app.task
        def count(zones):
            cache[os.getpid()] = cache.get(os.getpid(), 0) + 1
            return sum(zone.trips for zone in zones), cache[os.getpid()]

        @app.task
        def fail(zone):
            raise ZoneError(zone, 7)

        @app.task
        def caller(x):
            # A task that is defined below, by its name in this script.
            return (compute.s(x) | last.s()).apply_async().get(disable_sync_subtasks=False)

        @app.task(bind=True, autoretry_for=(ZoneError,), retry_backoff=False, default_retry_delay=0, max_retries=3)
        def retried(self):
            if self.request.retries < 2:
                raise ZoneError("JFK", self.request.retries)
            return self.request.retries

        @app.task
        def last(x):
            return -x

        @app.task
        def total(values):
            return sum(values)

        @shared_task
        def shared(x):
            return helper(x)

        if __name__ == "__main__":
            assert compute.name == "script.compute"
            assert compute.delay(1).get(timeout=90) == 6
            zone = make.delay("EWR").get(timeout=90)
            assert type(zone) is Zone and zone == Zone("EWR", 3)
            assert count.delay([zone, zone]).get(timeout=90)[0] == 6
            try:
                fail.delay("LGA").get(timeout=90)
            except ZoneError as exc:
                assert (exc.zone, exc.code) == ("LGA", 7)
            else:
                raise AssertionError
            assert caller.delay(1).get(timeout=90) == -6
            assert retried.delay().get(timeout=90) == 2
            assert shared.delay(2).get(timeout=90) == 9
            assert chord([compute.s(i) for i in range(3)], total.s()).delay().get(timeout=90) == 18
            counts = [count.delay([zone]).get(timeout=90)[1] for _ in range(4)]
            assert counts[-1] > counts[0], "globals of a script persist in a warm executor"
            print("ok")
    """)


def test_an_app_in_a_module_with_tasks_in_the_script(run) -> None:  # type: ignore[no-untyped-def]
    run(
        """
        from project import app, double

        class Odd(ValueError):
            pass

        @app.task
        def checked(x):
            if x % 2:
                raise Odd(x)
            return double(x)

        @app.task
        def both(x):
            return double.delay(x).get(disable_sync_subtasks=False) + checked.delay(x).get(disable_sync_subtasks=False)

        assert checked.delay(2).get(timeout=90) == 4
        assert double.delay(3).get(timeout=90) == 6
        assert both.delay(2).get(timeout=90) == 8
        try:
            checked.delay(3).get(timeout=90)
        except Odd as exc:
            assert exc.args == (3,)
        else:
            raise AssertionError
        print("ok")
        """,
        project="""
        from raycelery import Celery
        app = Celery("project")

        @app.task
        def double(x):
            return 2 * x
        """,
    )


def test_factories_and_closures(run) -> None:  # type: ignore[no-untyped-def]
    run(
        """
        from factory import create, make_task

        flask_like, celery, add_user = create("north", result_expires=600)
        assert add_user.delay("ada").get(timeout=90) == "ada of north"
        assert celery.conf.result_expires == 600

        twice, thrice = make_task(celery, "twice", 2), make_task(celery, "thrice", 3)
        assert (twice.delay(5).get(timeout=90), thrice.delay(5).get(timeout=90)) == (10, 15)
        print("ok")
        """,
        factory="""
        from raycelery import Celery, Task

        class Web:
            depth = 0
            def __init__(self, config):
                self.config = config
            def __enter__(self):
                Web.depth += 1
            def __exit__(self, *exc_info):
                Web.depth -= 1

        def create(tenant, **settings):
            web = Web({"TENANT": tenant})

            class ContextTask(Task):
                def __call__(self, *args, **kwargs):
                    with web:
                        return self.run(*args, **kwargs)

            celery = Celery("factory", task_cls=ContextTask)
            celery.conf.update(settings)

            @celery.task
            def add_user(name):
                assert Web.depth == 1
                return f"{name} of {web.config['TENANT']}"

            return web, celery, add_user

        def make_task(app, name, factor):
            @app.task(name=name)
            def times(x):
                return x * factor
            return times
        """,
    )


def test_a_notebook_whose_cells_are_run_again(run) -> None:  # type: ignore[no-untyped-def]
    run("""
        import __main__
        space = vars(__main__)
        def cell(text):
            exec(compile(text, "<cell>", "exec"), space)

        cell("from raycelery import Celery\\napp = Celery('notebook')")
        cell("def helper(x): return x + 1")
        cell("@app.task\\ndef work(x): return helper(x)")
        assert work.delay(1).get(timeout=90) == 2
        cell("@app.task\\ndef work(x): return helper(x) * 100")
        assert work.delay(1).get(timeout=90) == 200
        cell("def helper(x): return x + 2\\n@app.task\\ndef work(x): return helper(x) * 100")
        assert work.delay(1).get(timeout=90) == 300
        cell("class Own(Exception): pass\\n@app.task\\ndef fail(): raise Own('first')")
        cell("try:\\n    fail.delay().get(timeout=90)\\nexcept Own as exc:\\n    caught = str(exc)")
        assert caught == "first"
        cell("class Own(Exception): pass\\n@app.task\\ndef fail(): raise Own('second')")
        cell("try:\\n    fail.delay().get(timeout=90)\\nexcept Own as exc:\\n    caught = str(exc)")
        assert caught == "second", "the new class is raised, not the old"
        cell("@app.task\\ndef outer(x): return work.delay(x).get(disable_sync_subtasks=False)")
        assert outer.delay(1).get(timeout=90) == 300
        cell("@app.task\\ndef work(x): return 'newest'")
        assert outer.delay(1).get(timeout=90) == "newest", "as called from another task, too"
        cell("app = Celery('notebook')\\n@app.task\\ndef work(x): return 'of a new app'")
        got = work.delay(1).get(timeout=90)
        assert got == "of a new app", got
        print("ok")
    """)


def test_signal_handlers_of_a_script_are_connected_in_executors(run) -> None:  # type: ignore[no-untyped-def]
    run("""
        from raycelery import Celery
        from celery import signals

        app = Celery("signalled")
        seen = []

        @signals.worker_process_init.connect
        def load(**_):
            seen.append("init")

        @signals.task_prerun.connect
        def before(task_id=None, task=None, **_):
            seen.append(f"prerun {task.name}")

        @app.task
        def what():
            return list(seen)

        @signals.task_postrun.connect(sender=what)
        def after(sender=None, **_):
            seen.append("postrun")

        assert what.delay().get(timeout=90) == ["init", "prerun signalled.what"]
        assert what.delay().get(timeout=90)[2:] == ["postrun", "prerun signalled.what"]
        print("ok")
    """)


def test_functions_of_a_script_share_their_globals(run) -> None:  # type: ignore[no-untyped-def]
    run("""
        from pathlib import Path
        from raycelery import Celery
        from celery.signals import worker_process_init

        app = Celery("sharing")
        model = None
        limit = 10
        history = []

        @worker_process_init.connect
        def load(**_):
            global model
            model = "loaded"

        def remember(x):
            history.append(x)

        @app.task
        def predict(x):
            remember(x)
            return model, limit, len(history)

        @app.task
        def clear():
            history.clear()
            return Path(__file__).name

        assert predict.delay(1).get(timeout=90) == ("loaded", 10, 1)
        assert predict.delay(2).get(timeout=90) == ("loaded", 10, 2)
        limit = 20

        @app.task
        def predict(x):
            remember(x)
            return model, limit, len(history)

        assert predict.delay(3).get(timeout=90) == ("loaded", 20, 3), "what changed here is taken over, no more"
        assert clear.delay().get(timeout=90) == "script.py"
        assert predict.delay(4).get(timeout=90) == ("loaded", 20, 1)
        back = (lambda: limit)
        limit = 30

        @app.task
        def give():
            return back

        assert give.delay().get(timeout=90)() == 30
        assert limit == 30 and model is None, "nothing comes back by the way"
        print("ok")
    """)


def test_module_globals_of_closures_are_the_modules_own(run) -> None:  # type: ignore[no-untyped-def]
    run(
        """
        from flaskish import make_celery
        celery = make_celery("north")
        assert celery.tasks["count"].delay().get(timeout=90) == ("north", 1, "pushed")
        assert celery.tasks["count"].delay().get(timeout=90) == ("north", 2, "pushed")
        print("ok")
        """,
        flaskish="""
        import threading
        from raycelery import Celery
        from celery.signals import task_prerun

        lock = threading.Lock()  # could not be pickled
        counter = 0
        context = None

        def make_celery(tenant):
            app = Celery("flaskish")

            @app.task(name="count")
            def count():
                global counter
                with lock:
                    counter += 1
                return tenant, counter, context

            @task_prerun.connect(weak=False)
            def push(**_):
                global context
                context = "pushed"

            return app
        """,
    )


def test_what_cannot_travel_is_named_at_the_call(run) -> None:  # type: ignore[no-untyped-def]
    run("""
        import threading
        from raycelery import Celery
        from raycelery.errors import ArgumentError

        app = Celery("stuck")
        lock = threading.Lock()

        @app.task
        def guarded():
            with lock:
                return 1

        try:
            guarded.delay()
        except ArgumentError as exc:
            assert "stuck.guarded" in str(exc) and "lock" in str(exc), exc
        else:
            raise AssertionError
        print("ok")
    """)
