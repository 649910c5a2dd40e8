"""Several applications in one process: each has its own dispatcher, in executors and forked children as anywhere."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import Run

PROGRAMS = Path(__file__).parent / "programs"

#: Executors that end soon: tests share four CPUs.
NORTH = PROGRAMS / "north.py"

SOUTH = PROGRAMS / "south.py"


def test_a_task_calls_another_applications_task(run: Run) -> None:
    run(
        """
        import north, south

        assert north.ask.delay(2).get(timeout=80) == 4
        assert south.app.AsyncResult(north.start.delay(3).get(timeout=80)).get(timeout=80) == 6
        assert north.name.delay().get(timeout=80) == ("crossing-north", "crossing-south")
        assert south.back.delay(4).get(timeout=80) == 8
        revoked = south.app.AsyncResult(north.revoke_waiting.delay().get(timeout=80))
        try:
            revoked.get(timeout=80)
        except Exception as exc:
            assert type(exc).__name__ == "TaskRevokedError", exc
        print("ok")
        """,
        north=NORTH,
        south=SOUTH,
    )


def test_a_task_controls_another_application(run: Run) -> None:
    run(
        """
        import north

        found = north.look.delay().get(timeout=80)
        told = [{"ok": "time limits set successfully"}]
        assert found == ([True], told, "crossing-south", 1, ["south.double"], []), found
        print("ok")
        """,
        north=NORTH,
        south=SOUTH,
    )


def test_canvases_across_applications(run: Run) -> None:
    run(
        """
        import north, south
        from celery import chain, chord, group

        assert chain(north.ask.s(1), south.double.s(), north.ask.s()).apply_async().get(timeout=80) == 8
        assert group(north.ask.s(1), south.double.s(2)).apply_async().get(timeout=80) == [2, 4]
        assert chord([north.ask.s(1), south.double.s(2)], south.total.s()).apply_async().get(timeout=80) == 6
        assert chord([south.double.s(1), north.ask.s(2)], south.total.s()).apply_async().get(timeout=80) == 6
        assert north.hand_over.delay(3).get(timeout=80).get(timeout=80) == 6
        print("ok")
        """,
        north=NORTH,
        south=SOUTH,
    )


def test_an_application_of_a_script_that_another_one_uses_is_refused_by_name(run: Run) -> None:
    run("""
        from celery import chain
        from raycelery import Celery
        from raycelery.errors import ArgumentError

        first, second = Celery("first"), Celery("second")

        @first.task
        def double(x):
            return 2 * x

        @second.task
        def ask(x):
            return double.delay(x).get(disable_sync_subtasks=False)

        @second.task
        def send(x):
            return first.send_task("first.double", (x,)).id

        for call in [ask.s(1), send.s(1), chain(double.s(1), ask.s())]:
            try:
                call.apply_async()
            except ArgumentError as exc:
                assert "another application" in str(exc) and "move it and its tasks to a module" in str(exc), exc
            else:
                raise AssertionError(call)
        assert double.delay(1).get(timeout=80) == 2
        print("ok")
    """)


def test_tasks_on_all_cpus_that_wait_for_another_application(run: Run) -> None:
    run(
        """
        import north, south
        from celery import group

        # More than there are CPUs: those that wait lend theirs, to the other application too.
        spans = group(north.ask_when.s(i) for i in range(5)).apply_async().get(timeout=80)
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:])), spans
        print("ok")
        """,
        north=NORTH,
        south=SOUTH,
    )


def test_a_forked_child_of_an_executor(run: Run) -> None:
    run(
        """
        import north, south

        doubled, started = north.fork.delay().get(timeout=80)
        assert doubled == 10
        assert south.app.AsyncResult(started).get(timeout=80) == 12
        # The executor goes on.
        assert north.ask.delay(2).get(timeout=80) == 4
        print("ok")
        """,
        north=NORTH,
        south=SOUTH,
    )
