"""What a script sets on its application after it has made it is there in executors, or is refused by name."""

from __future__ import annotations

from pathlib import Path

from tests.scripts import Run

PROGRAMS = Path(__file__).parent / "programs"


def package(folder: Path, **modules: str) -> None:
    """Write a package `shop`."""
    (folder / "shop").mkdir()
    for name, text in {"__init__": "", **modules}.items():
        (folder / "shop" / f"{name}.py").write_text(text)


def test_what_is_set_on_an_application(run: Run, tmp_path: Path) -> None:
    package(tmp_path, tasks="from celery import shared_task\n\n@shared_task\ndef hello():\n    return 'hello'\n")
    run(
        PROGRAMS / "set_afterwards.py",
        hooks="""
        def finalized(sender, **_):
            import __main__
            __main__.events.append("hooks")
        """,
    )


def test_what_a_script_registers_with_kombu(run: Run) -> None:
    run(PROGRAMS / "registered_with_kombu.py")


def test_a_module_of_a_package_that_is_run_with_its_tasks(run: Run, tmp_path: Path) -> None:
    tasks = """
from raycelery import Celery
from .conf import LIMIT

app = Celery("relative")
app.config_from_object("__main__")
task_time_limit = 50
lock = __import__("threading").Lock()

@app.task
def limits():
    from . import conf
    from .conf import LIMIT as again
    return LIMIT, again, conf.LIMIT, app.conf.task_time_limit

if __name__ == "__main__":
    assert limits.delay().get(timeout=80) == (5, 5, 5, 50)
    print("ok")
"""
    package(tmp_path, conf="LIMIT = 5\n", tasks=tasks)
    run("import subprocess, sys\nsys.exit(subprocess.call([sys.executable, '-m', 'shop.tasks']))")


def test_what_cannot_travel_is_refused_by_its_name(run: Run) -> None:
    run(PROGRAMS / "refused.py")


def test_parts_of_its_own(run: Run) -> None:
    run(PROGRAMS / "own_parts.py")
