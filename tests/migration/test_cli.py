"""The command line: exit statuses, what is printed, configuration, standard input."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migration_tool.cli import main
from tests.support import ROOT


def invoke(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(
        "from celery import Celery\n\napp = Celery('x', broker='redis://')\n\n\n@app.task\ndef f():\n    return 1\n"
    )
    return tmp_path


def test_a_diff_is_shown_and_nothing_written(project: Path) -> None:
    before = (project / "tasks.py").read_text()
    done = invoke("shim", project)
    assert done.exit_code == 1
    assert "-from celery import Celery\n+from raycelery import Celery\n" in done.stdout
    assert (project / "tasks.py").read_text() == before


def test_check_names_files_that_would_change(project: Path) -> None:
    done = invoke("shim", "--check", project)
    assert done.exit_code == 1
    assert done.stdout == f"would change {project / 'tasks.py'}\n"
    assert invoke("shim", "--write", project).exit_code == 0
    assert invoke("shim", "--check", project).exit_code == 0
    assert invoke("shim", "--check", "--write", project).exit_code == 2


def test_the_code_is_never_run(project: Path) -> None:
    (project / "bomb.py").write_text(f"import celery\nopen({str(project / 'ran')!r}, 'w')\nraise SystemExit(9)\n")
    (project / "conftest.py").write_text("from bomb import *\n")
    for command in ("check", "shim", "actors"):
        done = subprocess.run(
            [sys.executable, "-m", "raycelery.migrate", command, "."], cwd=project, env={"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == (0 if command == "check" else 1), done.stderr
    assert not (project / "ran").exists()


@pytest.mark.parametrize("form", ["table", "json", "html", "github"])
def test_a_report_goes_to_a_file_that_is_tried_before(form: str, project: Path) -> None:
    target = project / "report"
    done = invoke("check", "--format", form, "--output", target, project)
    assert (done.exit_code, done.stdout) == (0, "")
    written = target.read_text()
    assert "broker_url" in written
    # The project is not even read: it is wrong, too.
    for unwritable, reason in ((target / "x", "Not a directory"), (project / "no" / "x", "there is no folder")):
        done = invoke("check", "--format", form, "--output", unwritable, project / "nowhere")
        assert done.exit_code == 2
        assert f"--output {unwritable}: it cannot be written: {reason}" in done.output
    done = invoke("check", "--format", form, "--output", "/dev/full", project)
    assert done.exit_code == 2
    assert "No space left on device" in done.output
    assert target.read_text() == written


def test_near_commands_are_named() -> None:
    done = invoke("chek", ".")
    assert done.exit_code == 2
    assert "there is no command 'chek'; did you mean 'check'?" in done.output


@pytest.mark.parametrize("command", ["check", "shim", "actors"])
def test_wrong_use_is_status_2(command: str, project: Path) -> None:
    assert invoke(command, project / "nowhere").exit_code == 2
    assert invoke(command, "-", project).exit_code == 2
    (project / "old.py").write_text("import celery\nprint 'x'\n")
    done = invoke(command, project)
    assert done.exit_code == 2
    assert "old.py:2: it is not valid Python 3" in done.output


def test_the_working_directory_is_taken_where_none_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert invoke("check").output == invoke("check", ".").output
    assert "tasks.py" in invoke("shim").stdout


def test_standard_input_and_output() -> None:
    done = invoke("shim", "-", stdin=b"import os\r\nfrom celery import x\r\n")
    assert done.stdout_bytes == b"import os\r\nfrom raycelery import x\r\n"
    assert done.exit_code == 0
    done = invoke("shim", "-", stdin=b"print 'x'\n")
    assert done.stdout_bytes == b"print 'x'\n"
    assert done.exit_code == 2


def test_nothing_that_standard_input_needs_is_kept_silent() -> None:
    source = b"from celery import shared_task\n@shared_task(rate_limit=1)\ndef f(): ...\n"
    source += b"@shared_task\ndef g(): ...\ng.delay()\n"
    done = invoke("actors", "-", stdin=source)
    assert done.exit_code == 0
    assert "submit(g_remote)\n" in done.stdout
    assert "it needs ray_tasks.py beside it" in done.stderr
    assert "task f: it stays on raycelery; it has rate_limit=" in done.stderr
    ast.parse(done.stdout)
    done = invoke("shim", "-", "--check", stdin=b"import celery\n")
    assert (done.exit_code, done.stdout) == (1, "would change <stdin>\n")
    assert invoke("shim", "-", "--check", stdin=b"import os\n").exit_code == 0
    done = invoke("shim", "-", stdin=b"from celery.task import task\n")
    assert (done.exit_code, done.stdout) == (1, "from celery.task import task\n")
    assert "<stdin>:1:1: by hand: import celery.task: Celery 5 does not have it" in done.stderr


def test_no_caller_is_changed_if_its_helper_cannot_be_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "caller.py").write_text("from tasks import f\n\nf.delay()\n")
    before = {path: path.read_bytes() for path in project.iterdir()}
    helper = project / "ray_tasks.py"
    helper.symlink_to(project / "nowhere" / "else.py")  # neither read nor replaced
    done = invoke("actors", "--write", project)
    assert done.exit_code == 2
    assert "ray_tasks.py cannot be written, which the other changes need: none is made" in done.stderr
    helper.unlink()
    assert {path: path.read_bytes() for path in project.iterdir()} == before


def test_configuration(project: Path) -> None:
    config = project / "pyproject.toml"
    config.write_text('[tool.raycelery-migrate]\nexclude = ["tasks.py"]\njobs = 1\n')
    assert invoke("shim", "--check", project).exit_code == 0
    config.write_text("[tool.raycelery-migrate]\nexcludes = []\n")
    done = invoke("shim", "--check", project)
    assert done.exit_code == 2
    assert "did you mean 'exclude'?" in done.output
    config.write_text("[tool.raycelery-migrate]\njobs = 0\n")
    assert "must be 1 or more" in invoke("shim", "--check", project).output
    config.write_text("[tool.raycelery-migrate]\njobs = true\n")
    assert "jobs = True must be a int" in invoke("shim", "--check", project).output
    config.write_text("[tool.raycelery-migrate]\nclosed = true\nlimit = 7\n")
    assert "+f_remote = " in invoke("actors", project / "tasks.py").stdout


def test_annotations_from_a_rightsize_result(project: Path) -> None:
    (project / "more.py").write_text(
        "from celery import shared_task\n"
        "@shared_task(bind=True, num_cpus=1,)\ndef g(self): ...\n"
        "@shared_task(\n    name='other.h',  # mine\n)\ndef h(): ...\n"
        "@shared_task()\ndef i(): ...\n"
    )
    sizes = project / "sizes.json"
    sizes.write_text(
        json.dumps({
            "tasks.f": {"num_cpus": 2.0, "memory": 1500000000},
            "more.g": {"num_cpus": 4, "memory": 7},
            "other.h": {"num_cpus": 0.25},
            "more.i": {"memory": 3},
        })
    )  # fmt: skip
    assert invoke("shim", "--write", "--annotate", sizes, project).exit_code == 0
    assert "@app.task(num_cpus=2, memory=1500000000)\n" in (project / "tasks.py").read_text()
    more = (project / "more.py").read_text()
    assert "@shared_task(bind=True, num_cpus=1, memory=7,)\n" in more
    assert "    name='other.h', num_cpus=0.25,  # mine\n" in more
    assert "@shared_task(memory=3)\n" in more
    assert invoke("shim", "--check", "--annotate", sizes, project).exit_code == 0
    sizes.write_text("[]")
    assert "it has no requests" in invoke("shim", "--annotate", sizes, project).output


def test_several_processes_give_the_same(project: Path) -> None:
    for number in range(60):
        # Other processes are only started for much text.
        (project / f"m{number}.py").write_text(f"from tasks import f\nimport celery\nf.delay()\n# {'x' * 9000}\n")
    one = invoke("actors", "--jobs", "1", project)
    two = invoke("actors", "--jobs", "2", project)
    assert one.stdout == two.stdout
    assert one.stdout.count("+submit(f_remote)") == 60


def test_pins_of_what_celery_needed_are_named(project: Path) -> None:
    (project / "requirements.txt").write_text("celery==4.4.1\nkombu==4.6\nvine==1.3\nflask==1\n")
    done = invoke("shim", "--write", project)
    assert (project / "requirements.txt").read_text() == "raycelery\nkombu==4.6\nvine==1.3\nflask==1\n"
    assert "dependency kombu: Celery's own dependency is pinned" in done.output
    assert "dependency vine" in done.output


def test_tasks_that_nobody_submits_are_converted_only_in_a_closed_project(project: Path) -> None:
    assert "f_remote" not in invoke("actors", project).stdout
    assert "+f_remote = ray.remote(num_cpus=1, max_retries=0)(f)\n" in invoke("actors", "--closed", project).stdout


def test_no_absolute_path_gets_into_a_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "caller.py").write_text("from tasks import f\n\nf.delay()\n")
    monkeypatch.chdir(project)
    done = invoke("actors", "tasks.py")
    assert "# raycelery-migrate: stays on raycelery: caller.py, which is not migrated, uses it" in done.stdout
    done = invoke("actors", ".")
    assert "+++ b/ray_tasks.py" in done.stdout
    assert str(project) not in done.stdout


def test_a_bar_is_drawn_on_a_terminal_only(project: Path) -> None:
    command = [sys.executable, "-m", "raycelery.migrate", "shim", "--check", str(project)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    piped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert piped.stderr == "1 file, 1 would change\n"
    here, there = pty.openpty()
    with subprocess.Popen(command, env=environment, stderr=there, stdout=subprocess.DEVNULL) as process:
        os.close(there)
        said = b""
        with contextlib.suppress(OSError):  # how a terminal ends whose other side is closed
            while part := os.read(here, 4096):
                said += part
        assert process.wait(timeout=60) == 1
    os.close(here)
    assert b"reading" in said
    assert "━".encode() in said
