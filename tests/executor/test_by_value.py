"""Applications and tasks that are written in a script, with all that they use."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import Run

PROGRAMS = Path(__file__).parent / "programs"


def test_a_script_with_everything_in_it(run: Run) -> None:
    run(PROGRAMS / "everything.py")


def test_an_app_in_a_module_with_tasks_in_the_script(run: Run) -> None:
    run(
        PROGRAMS / "tasks_of_a_script.py",
        project="""
        from raycelery import Celery
        app = Celery("project")

        @app.task
        def double(x):
            return 2 * x
        """,
    )


def test_what_cannot_travel_is_named_at_the_call(run: Run) -> None:
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
