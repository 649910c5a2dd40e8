"""Functions that travel by value act as in one program: shared globals, handlers, cells that are run again."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import Run

PROGRAMS = Path(__file__).parent / "programs"


def test_a_notebook_whose_cells_are_run_again(run: Run) -> None:
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


def test_functions_of_a_script_share_their_globals(run: Run) -> None:
    run(PROGRAMS / "sharing_globals.py")


def test_signal_handlers_of_a_script_are_connected_in_executors(run: Run) -> None:
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
