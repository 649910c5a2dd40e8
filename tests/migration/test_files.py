"""Files: which are looked at, what of their bytes is kept, how they are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migration_tool.cli import main
from tests.support import ROOT

BEFORE = "from celery import Celery\n"
AFTER = "from raycelery import Celery\n"


def shim(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["shim", "--write", *map(str, arguments)])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("# -*- coding: latin-1 -*-\nfrom celery import x  # Größe\n".encode("latin-1"), id="latin-1"),
        pytest.param(b"\xef\xbb\xbffrom celery import x\n", id="mark"),
        pytest.param(b"from celery import x\r\nimport os\r\n", id="crlf"),
        pytest.param(b"import os\r\nfrom celery import x\nimport re\r", id="mixed"),
        pytest.param(b"from celery import x", id="no newline at the end"),
        pytest.param(b"#!/usr/bin/env python\n\x0c\nfrom celery import x ; y=1\t\n\n\n", id="form feed"),
        pytest.param("from celery import x\ns = 'Ünïcødé 🎉'; import celery.utils\ncelery.utils\n".encode(), id="wide"),
        pytest.param(b"if 1:\n\tfrom celery import x # type: ignore\n\\\n\n", id="tabs"),
    ],
)
def test_all_bytes_but_the_name_stay(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    assert shim(path).exit_code == 0
    assert path.read_bytes() == content.replace(b"celery", b"raycelery")


def test_a_wrong_encoding_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_bytes(b"from celery import x  # \xff\n")
    (tmp_path / "unknown.py").write_bytes(b"# coding: klingon\nfrom celery import x\n")
    (tmp_path / "null.py").write_bytes(b"from celery import x\0\n")
    (tmp_path / "good.py").write_text(BEFORE)
    done = shim(tmp_path)
    assert done.exit_code == 2
    assert "bad.py: invalid or missing encoding" in done.output
    assert "unknown.py: unknown encoding" in done.output
    assert "null.py" in done.output
    assert (tmp_path / "good.py").read_text() == AFTER


def test_what_cannot_be_read_and_says_nothing_of_celery_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "python2.py").write_text('print "x"\n')
    (tmp_path / "old.ipynb").write_text('{"worksheets": [{"cells": []}], "nbformat": 3}')
    (tmp_path / "odd.ipynb").write_text('{"cells": ["x", {"cell_type": "code", "source": 1}], "nbformat": 4}')
    (tmp_path / "list.ipynb").write_text("[]")
    (tmp_path / "good.py").write_text(BEFORE)
    for command in ("check", "shim", "actors"):
        done = CliRunner().invoke(main, [command, "--jobs", "1", str(tmp_path)])
        assert done.exit_code in (0, 1), done.output
        assert "skipped" not in done.output
    (tmp_path / "odd.ipynb").write_text('{"cells": ["celery"], "nbformat": 4}')
    done = CliRunner().invoke(main, ["shim", "--jobs", "1", str(tmp_path)])
    assert done.exit_code == 2
    assert "odd.ipynb: it is not a notebook of format 4" in done.output


@pytest.mark.parametrize("command", ["check", "shim", "actors"])
def test_a_file_that_is_too_deep_is_reported_and_the_rest_goes_on(tmp_path: Path, command: str) -> None:
    task = "from celery import shared_task\n\n\n@shared_task\ndef {0}():\n    return 1\n\n\n{0}.delay()\n"
    (tmp_path / "deep.py").write_text(task.format("deep") + "x = lambda y: " + " + ".join(["y"] * 1200) + "\n")
    (tmp_path / "good.py").write_text(task.format("good"))
    done = CliRunner().invoke(main, [command, "--jobs", "1", *(["--write"] * (command != "check")), str(tmp_path)])
    assert done.exit_code == 2, done.output
    assert "deep.py: raycelery-migrate failed on this file (RecursionError" in done.output
    assert ("from celery" in (tmp_path / "good.py").read_text()) == (command == "check")


def test_ignored_excluded_and_linked_files_are_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text(BEFORE)
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.py").write_text(BEFORE)
    project = tmp_path / "project"
    for name in (
        "a.py",
        "build/b.py",
        "keep/build.py",
        "deep/gen_c.py",
        "deep/d.py",
        "venv/lib/e.py",
        "node_modules/f.py",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(BEFORE)
    (project / "venv/pyvenv.cfg").touch()
    (project / ".gitignore").write_text("/build/\n")
    (project / "deep/.gitignore").write_text("gen_*\n")
    (project / "link.py").symlink_to(outside)
    (project / "linked").symlink_to(other)
    (project / "skip.py").write_text(BEFORE)
    shim(project, "--exclude", "skip.py")
    changed = {path.relative_to(project).as_posix() for path in project.rglob("*.py") if path.read_text() == AFTER}
    assert changed == {"a.py", "keep/build.py", "deep/d.py"}
    assert outside.read_text() == (other / "b.py").read_text() == BEFORE


def test_the_parents_gitignore_counts_inside_a_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("generated.py\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "generated.py").write_text(BEFORE)
    assert shim(package).exit_code == 0
    assert (package / "generated.py").read_text() == BEFORE
    shim(package / "generated.py")
    assert (package / "generated.py").read_text() == AFTER, "named itself"


def test_permissions_stay_and_nothing_else_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.py"
    path.write_text(BEFORE)
    path.chmod(0o750)
    done = shim(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o750
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run.py", "run.py.orig"]
    assert (tmp_path / "run.py.orig").read_text() == BEFORE
    assert "the original is kept as" in done.output


def test_version_control_needs_no_backup_but_for_what_it_does_not_know(tmp_path: Path) -> None:
    for arguments in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    (tmp_path / "known.py").write_text(BEFORE)
    subprocess.run(["git", "add", "known.py"], cwd=tmp_path, check=True)
    (tmp_path / "new.py").write_text(BEFORE)
    (tmp_path / "edited.py").write_text("")
    subprocess.run(["git", "add", "edited.py"], cwd=tmp_path, check=True)
    (tmp_path / "edited.py").write_text(BEFORE)
    shim(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        ".git", "edited.py", "edited.py.orig", "known.py", "new.py", "new.py.orig"
    ]  # fmt: skip


def test_no_program_of_the_projects_git_configuration_is_run(tmp_path: Path) -> None:
    program = tmp_path / "monitor"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    (tmp_path / "known.py").write_text(BEFORE)
    for arguments in (["init", "-q"], ["add", "known.py"], ["config", "core.fsmonitor", str(program)]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    shim(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "known.py.orig").exists()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\x0c"])
def test_diffs_apply(tmp_path: Path, end: str) -> None:
    (tmp_path / "tasks.py").write_bytes(BEFORE.replace("\n", end).encode())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "raycelery.migrate", "shim", "."], cwd=tmp_path, stdout=subprocess.PIPE, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    subprocess.run(["git", "apply"], input=done.stdout, cwd=tmp_path, check=True)
    assert b"raycelery" in (tmp_path / "tasks.py").read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(BEFORE)
    path.chmod(0o444)
    done = shim(tmp_path)
    assert done.exit_code == 2
    assert "it is read-only" in done.output
    assert path.read_text() == BEFORE


def test_a_file_that_changes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    from migration_tool.errors import UnreadableFile
    from migration_tool.files.replace import replace

    path = tmp_path / "a.py"
    path.write_text("new")
    with pytest.raises(UnreadableFile, match="changed while"):
        replace(path, b"old", b"newer")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("encoding", "mark", "end"),
    [("latin-1", b"", "\n"), ("utf-8", b"\xef\xbb\xbf", "\r\n"), ("cp1252", b"", "\r\n")],
)
def test_actors_keeps_the_encoding_and_the_line_ends(tmp_path: Path, encoding: str, mark: bytes, end: str) -> None:
    text = f"# -*- coding: {encoding} -*-{end}from celery import shared_task  # Größe{end}{end}\x0c{end}"
    text += f"@shared_task  # type: ignore{end}def f(x):{end}\treturn 'ü'  # noqa{end}{end}f.delay('é'){end}"
    path = tmp_path / "a.py"
    path.write_bytes(mark + text.encode(encoding))
    done = CliRunner().invoke(main, ["actors", "--write", str(path)])
    assert done.exit_code == 0, done.output
    after = path.read_bytes()
    assert after.startswith(mark)
    decoded = after[len(mark) :].decode(encoding)
    assert "\n" not in decoded.replace("\r\n", "") if end == "\r\n" else "\r" not in decoded
    for kept in ("\x0c" + end, f"\treturn 'ü'  # noqa{end}", "'é')"):
        assert kept in decoded
    assert f"submit(f_remote, 'é'){end}" in decoded
