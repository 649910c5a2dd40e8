"""Executors come and go: recycling by tasks and memory, their names, and where their output is to be read."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import group
from celery.signals import worker_process_init, worker_process_shutdown

from raycelery import Celery
from tests import scripts
from tests.support import ROOT, RaySession, until

SECONDS = 110

fresh = Celery("fresh")
fresh.conf.worker_max_tasks_per_child = 10
leaky = Celery("leaky")
leaky.conf.worker_max_memory_per_child = 400_000  # KiB, as in Celery
LEAKED: list[bytearray] = []


@fresh.task
def where(number: int) -> tuple[int, int]:
    return number, os.getpid()


@fresh.task(executor="function")
def connections() -> tuple[int, int]:
    return os.getpid(), sum(thread.name.startswith("raycelery-reader") for thread in threading.enumerate())


@leaky.task
def leak(number: int, kilobytes: int) -> tuple[int, int, int]:
    LEAKED.append(bytearray(os.urandom(1024) * kilobytes))
    return number, os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@worker_process_init.connect
@worker_process_shutdown.connect
def note(signal: Any = None, **_: Any) -> None:
    path = os.environ.get("CELERY_LIFECYCLE_NOTES")
    if path:
        what = "init" if signal is worker_process_init else "shutdown"
        with open(path, "a") as file:
            file.write(f"{what} {os.getpid()}\n")


def test_executors_are_replaced_after_so_many_tasks(
    ray_session: RaySession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("CELERY_LIFECYCLE_NOTES", str(notes))
    values = group(where.s(number) for number in range(100)).apply_async().get(timeout=SECONDS)
    assert sorted(number for number, _ in values) == list(range(100)), "nothing is lost"
    ran = Counter(pid for _, pid in values)
    assert max(ran.values()) <= 10
    expected = {f"init {pid}" for pid in ran} | {f"shutdown {pid}" for pid, count in ran.items() if count == 10}
    until(
        lambda: expected <= set(notes.read_text().split("\n")),
        SECONDS,
        lambda: expected - set(notes.read_text().split("\n")),
    )


def test_a_reused_worker_process_keeps_no_connections(ray_session: RaySession) -> None:
    seen = [connections.delay().get(timeout=SECONDS) for _ in range(4)]
    assert len({pid for pid, _ in seen}) < 4
    assert {count for _, count in seen} == {1}


def _leak(count: int, kilobytes: int) -> None:
    values = group(leak.s(number, kilobytes) for number in range(count)).apply_async().get(timeout=600)
    assert sorted(number for number, _, _ in values) == list(range(count)), "nothing is lost"
    assert max(kib for _, _, kib in values) < 450_000
    assert len({pid for _, pid, _ in values}) > 4


def test_leaking_tasks_keep_memory_flat(ray_session: RaySession) -> None:
    _leak(2000, 700)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_leaking_tasks_keep_memory_flat(ray_session: RaySession) -> None:
    _leak(10_000, 400)


SCRIPT = """
    import logging, sys
    from raycelery import Celery
    from celery.utils.log import get_task_logger

    app = Celery("chatter", ray_init={"num_cpus": 1, "_temp_dir": sys.argv[1]})
    logger = get_task_logger("chatter.tasks")

    @app.task
    def speak():
        print("printed words")
        print("error words", file=sys.stderr)
        logger.info("logged words")
        logging.getLogger("some.library").warning("library words")

    PROLOGUE
    speak.delay().get(timeout=100)
    print("done", flush=True)
"""
PROXY = """
    if True:
        from celery.utils.log import LoggingProxy
        logging.basicConfig(stream=sys.__stderr__, level="INFO")
        sys.stdout = LoggingProxy(logging.getLogger("proxy"), "INFO")
        sys.stderr = LoggingProxy(logging.getLogger("proxy"), "ERROR")
"""


def _run(tmp_path: Path, temp: Path, prologue: str = "") -> tuple[str, str]:
    script = tmp_path / "chatter_script.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("PROLOGUE", textwrap.dedent(prologue)))
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(temp)], env=env, capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_output_reaches_the_driver_and_the_log_files(tmp_path: Path, short: Path) -> None:
    out, err = _run(tmp_path, short)
    assert "done" in out
    said = out + err
    for words in ("printed words", "error words", "logged words", "library words"):
        lines = [line for line in said.splitlines() if words in line]
        assert len(lines) == 1, (words, said)
        assert re.match(r"\(chatter\.speak [0-9a-f]{8}\) ", lines[0]), "each names its task"
    logs = "".join(path.read_text() for path in (short / "session_latest" / "logs").glob("raycelery-*.log"))
    for words in ("printed words", "error words", "logged words", "library words"):
        assert words in logs
    assert re.search(r" INFO chatter\.speak\[[0-9a-f-]{36}\] logged words\n", logs)


def test_celerys_logging_proxy_on_stdout_does_not_break_the_start_of_ray(tmp_path: Path, short: Path) -> None:
    out, err = _run(tmp_path, short, PROXY)
    assert "done" in out + err
    assert "logged words" in out + err


@fresh.task
def name_in_ray() -> str:
    return psutil.Process().cmdline()[0].removeprefix("ray::")


def test_executors_have_readable_names(ray_session: RaySession) -> None:
    assert name_in_ray.delay().get(timeout=SECONDS).startswith("fresh [1 CPU] #")
    assert name_in_ray.apply_async(executor="function").get(timeout=SECONDS).startswith("fresh [1 CPU, function] #")


@pytest.fixture
def short() -> Any:
    from tests.support import short_directory

    with short_directory() as directory:
        yield directory


def test_an_executor_imports_no_more_than_its_application_does(tmp_path: Path, ray_session: RaySession) -> None:
    shop = """
        import sys
        from raycelery import Celery
        from raycelery.serialization import values

        app = Celery("lean")

        @app.task
        def modules():
            return sorted(sys.modules.keys() & {"numpy", "pyarrow", "pydantic"})

        @app.task
        def sizes():
            # Ray's serializers leave out what a table does not show of what it is a part of.
            import pyarrow
            import ray

            part = pyarrow.table({"x": list(range(100_000))}).slice(0, 1)
            kept = ray.get(ray.put(part))
            assert kept.num_rows == 1
            return len(values.dumps(part)[0])
    """
    scripts.run(
        tmp_path,
        """
        from shop import modules, sizes

        assert modules.delay().get(timeout=90) == []
        assert sizes.delay().get(timeout=90) < 10_000
        print("ok")
        """,
        address=ray_session.address,
        shop=shop,
    )
