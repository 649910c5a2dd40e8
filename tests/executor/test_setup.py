"""What a project does in a worker before it forks is done in executors, in Celery's order; what is not is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import Run

PROGRAMS = Path(__file__).parent / "programs"

#: What prefork children inherit, in the order in which Celery's worker does it (tried with `celery worker -c 1`).
ORDER = [
    "loader.on_worker_init",
    "celeryd_init",
    "worker_init",
    "setup_logging",
    "First.__init__",
    "Second.__init__",
    "Second.create",
    "celeryd_after_setup",
    "loader.on_worker_process_init",
    "worker_process_init",
]
PROJECT = (PROGRAMS / "steps_before_forking.py").read_text()


@pytest.mark.parametrize("executor", ["actor", "function"])
def test_what_prefork_children_inherit(run: Run, executor: str) -> None:
    said = run(
        f"""
        from shop import done
        for _ in range(3):
            result = done.apply_async(executor={executor!r})
            steps, priority, heard = result.get(timeout=90)
            assert heard[-1:] == [result.id]
        assert priority == 7
        # An executor for functions begins anew for each message, in the process that there is.
        again = steps[{len(ORDER)}:]
        assert steps[:{len(ORDER)}] == {ORDER}, steps
        assert set(again) <= set({ORDER[-2:]}), again
        print("ok")
        """,
        shop=PROJECT.replace("PACKAGE", "raycelery"),
    )
    assert "these do not run: the bootstep shop.NeedsTimer" not in said, "it has no start of its own"
    assert "these do not run: the bootstep shop.Second" in said


def test_what_does_not_run_is_named_where_the_program_starts(run: Run) -> None:
    said = run(
        """
        from shop import done
        assert done.delay().get(timeout=90) == []
        print("ok")
        """,
        shop="""
        from celery import bootsteps, signals
        from raycelery import Celery
        app = Celery("shop")
        DONE = []

        @signals.worker_ready.connect
        def announce(**_): DONE.append(1)

        @signals.celeryd_init.connect(sender="nights@example.com")
        def nights(**_): DONE.append(2)

        class Probe(bootsteps.StartStopStep):
            def start(self, worker): DONE.append(3)

        class More(bootsteps.ConsumerStep):
            def __init__(self, consumer, **_): DONE.append(4)

        app.steps["worker"].add(Probe)
        app.steps["consumer"].add(More)

        @app.task
        def done(): return DONE
        """,
    )
    assert "there is no worker process in direct mode, so these do not run: the bootstep shop.More, " in said
    assert "the bootstep shop.Probe, announce of worker_ready (ray_mode='bridge' has one)" in said
    assert "handlers for a worker's name do not run in executors, which have none: nights of celeryd_init" in said
