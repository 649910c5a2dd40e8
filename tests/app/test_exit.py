"""How a process ends that started its own Ray: it waits for what it submitted, unless it is told not to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ENVIRONMENT, ROOT, RaySession, short_directory, until

SECONDS = 110
#: The head of every script: an application in ``__main__``, as a user's first one is.
HEAD = """
import logging, os, signal, sys, time
logging.basicConfig(level=logging.INFO)
from raycelery import Celery
from raycelery.protocol import questions

app = Celery("leaving")
app.conf.ray_init = {"num_cpus": 2, "object_store_memory": 100_000_000, "_temp_dir": sys.argv[2]}
folder = sys.argv[1]

@app.task
def touch(number, seconds=0.0):
    time.sleep(seconds)
    open(os.path.join(folder, str(number)), "w").close()
    return number

@app.task
def fail():
    raise ValueError("as asked")
"""


@contextmanager
def running(script: str, folder: Path, address: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a script with a Ray of its own, or that at ``address``."""
    source = folder / "script.py"
    source.write_text(HEAD + textwrap.dedent(script))
    env = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": address}
    if not address:
        del env["RAY_ADDRESS"]
    with short_directory() as ray_directory:
        process = subprocess.Popen(
            [sys.executable, str(source), str(folder), str(ray_directory)],
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def run(script: str, folder: Path, address: str = "") -> tuple[int, str]:
    """Return exit status and output of a script."""
    with running(script, folder, address) as process:
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output


def ran(folder: Path) -> set[int]:
    """Return the numbers of the tasks that ran."""
    return {int(one.name) for one in folder.iterdir() if one.name.isdigit()}


def test_all_that_was_submitted_is_done_at_exit(tmp_path: Path) -> None:
    script = """
    for number in range(150):
        touch.delay(number, 0.02)
    fail.delay()
    touch.apply_async((150,), countdown=1).then(lambda result: print("told of", result.result))
    """
    code, output = run(script, tmp_path)
    assert code == 0, output
    assert "told of 150" in output, "callbacks are called before the process ends"
    assert ran(tmp_path) == set(range(151)), output
    assert "waiting for" in output, "it says why it does not end"


def test_what_tasks_submit_is_waited_for_too(tmp_path: Path) -> None:
    script = """
    from celery import chain, chord

    chain(touch.si(0, 0.3), touch.si(1, 0.3), touch.si(2)).delay()
    chord([touch.si(3, 0.2), touch.si(4)], touch.si(5)).delay()
    """
    code, output = run(script, tmp_path)
    assert code == 0, output
    assert ran(tmp_path) == set(range(6)), output


def test_nothing_is_waited_for_where_nothing_was_submitted(tmp_path: Path) -> None:
    code, output = run("print('state', app.AsyncResult('unknown').state)", tmp_path)
    assert code == 0, output
    assert "state PENDING" in output
    assert "waiting for" not in output


def test_an_error_keeps_its_status_and_loses_no_task(tmp_path: Path) -> None:
    script = """
    for number in range(20):
        touch.delay(number, 0.05)
    raise RuntimeError("the script's own")
    """
    code, output = run(script, tmp_path)
    assert code == 1, output
    assert "the script's own" in output
    assert ran(tmp_path) == set(range(20)), output


def test_sys_exit_keeps_its_status(tmp_path: Path) -> None:
    code, output = run("touch.delay(1, 0.3)\nsys.exit(7)", tmp_path)
    assert code == 7, output
    assert ran(tmp_path) == {1}


def interrupt(process: subprocess.Popen[str], word: str) -> tuple[str, float]:
    """Press Ctrl-C once the script has said ``word``; return its output and the seconds it took to end."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            break
    else:
        pytest.fail("".join(seen))
    # A terminal sends it to all processes of the group, Ray's among them.
    os.killpg(process.pid, signal.SIGINT)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=SECONDS)
    return "".join(seen) + output, time.monotonic() - begun


def test_ctrl_c_ends_the_wait(tmp_path: Path) -> None:
    with running("for number in range(8):\n    touch.delay(number, 100)", tmp_path) as process:
        output, seconds = interrupt(process, "waiting for 8 tasks")
    assert seconds < 60
    assert process.returncode == -signal.SIGINT, output  # which shells call 130
    assert "unfinished tasks are dropped" in output
    assert not ran(tmp_path)


def test_who_is_asked_to_end_does_not_wait(tmp_path: Path) -> None:
    script = """
    for number in range(8):
        touch.delay(number, 100)
    print("submitted", app.client.call(questions.Pending()))
    time.sleep(100)
    """
    with running(script, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "submitted" in line:
                break
        process.terminate()
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "waiting for" not in output
    assert "SIGTERM received" not in output, "nor does Ray print the process's stack"
    assert not ran(tmp_path)


def test_ctrl_c_in_the_script_does_not_wait(tmp_path: Path) -> None:
    script = """
    for number in range(8):
        touch.delay(number, 100)
    app.client.call(questions.Pending())
    print("submitted")
    time.sleep(100)
    """
    with running(script, tmp_path) as process:
        output, seconds = interrupt(process, "submitted")
    assert seconds < 60
    assert process.returncode != 0, output
    assert "KeyboardInterrupt" in output
    assert "waiting for" not in output


def test_ctrl_c_while_waiting_for_a_result_is_the_scripts_to_handle(tmp_path: Path) -> None:
    script = """
    result = touch.delay(1, 100)
    app.client.call(questions.Pending())
    try:
        print("submitted")
        result.get()
    except KeyboardInterrupt:
        result.revoke(terminate=True)
        print("state", result.get(propagate=False), result.state)
    print("second", touch.delay(2).get())
    """
    with running(script, tmp_path) as process:
        output, _ = interrupt(process, "submitted")
    assert process.returncode == 0, output
    assert "REVOKED" in output
    assert "second 2" in output
    assert ran(tmp_path) == {2}


def test_a_process_on_a_cluster_leaves_without_waiting(tmp_path: Path, ray_session: RaySession) -> None:
    script = """
    for number in range(30):
        touch.delay(number, 0.1)
    """
    code, output = run(script, tmp_path, ray_session.address)
    assert code == 0, output
    assert "waiting for" not in output
    until(lambda: ran(tmp_path) == set(range(30)), SECONDS, "the cluster does not go on with it")


KILL = """
    touch.delay(1000).get(timeout=60)
    pid = app.client.call(questions.Stats())["pid"]
"""


def test_what_was_submitted_while_the_dispatcher_was_down_is_handed_over(
    tmp_path: Path, ray_session: RaySession
) -> None:
    script = f"""
    {KILL}
    os.kill(pid, signal.SIGKILL)
    for number in range(50):
        touch.delay(number)
    """
    code, output = run(script, tmp_path, ray_session.address)
    assert code == 0, output
    until(lambda: ran(tmp_path) == {*range(50), 1000}, SECONDS, output)


@pytest.mark.parametrize("how", ["script", "fork", "multiprocessing"])
def test_what_could_not_be_handed_over_is_told(tmp_path: Path, ray_session: RaySession, how: str) -> None:
    script = f"""
    from raycelery.client import leaving
    leaving.HAND_OVER_SECONDS = 1.0
    {KILL}
    print("frozen", pid)

    def submit():
        touch.delay(1001).get(timeout=60)
        os.kill(pid, signal.SIGSTOP)
        for number in range(50):
            touch.delay(number)
    """
    ends = {
        "script": "submit()",
        "fork": """
    child = os.fork()
    if not child:
        submit()
        sys.exit()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """,
        "multiprocessing": """
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=submit)
    child.start()
    child.join()
    sys.exit(child.exitcode)
    """,
    }
    code, output = run(script + ends[how], tmp_path, ray_session.address)
    pid = int(next(line.split()[1] for line in output.splitlines() if line.startswith("frozen")))
    os.kill(pid, signal.SIGCONT)
    assert code == 1, output
    # The first ones may have been confirmed before it stood still.
    assert re.search(r"raycelery: \d+ tasks? that this program called may never run", output), output
    assert "did not answer" in output
    until(lambda: ran(tmp_path) == {*range(50), 1000, 1001}, SECONDS, "here it had only not confirmed them")


def test_a_forked_child_ends_by_itself_with_its_own_status(tmp_path: Path) -> None:
    script = """
    touch.delay(1).get(timeout=60)
    child = os.fork()
    if not child:
        touch.delay(2).get(timeout=60)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    print("third", touch.delay(3).get(timeout=60))
    """
    code, output = run(script, tmp_path)
    assert code == 0, output
    assert "third 3" in output, "the child has left its parent's Ray alone"
    assert ran(tmp_path) == {1, 2, 3}


def test_two_processes_share_one_dispatcher_by_its_name(tmp_path: Path, ray_session: RaySession) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    code, output = run("print('id', touch.delay(1, 0.2).id)", first, ray_session.address)
    assert code == 0, output
    task_id = next(line.split()[1] for line in output.splitlines() if line.startswith("id "))
    script = f"""
    print("first's", app.AsyncResult({task_id!r}).get(timeout=60))
    print("mine", touch.delay(2).get(timeout=60))
    """
    code, output = run(script, second, ray_session.address)
    assert code == 0, output
    assert "first's 1" in output
    assert "mine 2" in output
    assert ran(first) == {1}
    assert ran(second) == {2}, "each runs its own code, with its own globals"
