"""Every case of the corpus: what is before becomes what is after, and a second run changes nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool.cli import main
from tests.migration.corpus_cases import Case, cases, read

CASES = [(command, case) for command in ("shim", "actors") for case in cases(command)]


@pytest.mark.parametrize(("command", "case"), CASES, ids=[f"{command}-{case.name}" for command, case in CASES])
def test_case(command: str, case: Case, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / ".hg").mkdir()  # so that no backups are made
    case.write(project)
    first = CliRunner().invoke(main, [command, "--write", "--jobs", "1", str(project)])
    assert first.exception is None or isinstance(first.exception, SystemExit), first.output
    after = read(project)
    assert after == {**case.before, **case.after}, case.about
    for name in {*case.after} & {name for name in after if name.endswith(".py")}:
        ast.parse(after[name])
    second = CliRunner().invoke(main, [command, "--write", "--jobs", "1", str(project)])
    assert second.exception is None or isinstance(second.exception, SystemExit), second.output
    assert read(project) == after, "the second run changed something"
