"""Every legacy example is migrated both ways, in a copy. tests/legacy_examples run the copies on Ray."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool.cli import main
from tests.legacy_examples import projects

PROJECTS = sorted(path.name for path in projects.SOURCES.iterdir() if path.is_dir() and list(path.rglob("*.py")))


def contents(project: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["shim", "actors"])
@pytest.mark.parametrize("name", PROJECTS)
def test_a_migrated_project_parses_and_is_done_with(name: str, command: str, tmp_path: Path) -> None:
    project = projects.copy(name, tmp_path, command).folder
    migrated = contents(project)
    for path, content in migrated.items():
        if path.suffix == ".py":
            ast.parse(content)
            assert b"\nfrom celery import" not in content
            assert b"\nimport celery\n" not in content
    again = CliRunner().invoke(main, [command, "--check", "--jobs", "1", str(project)])
    assert "would" not in again.stdout, again.output
    assert contents(project) == migrated


@pytest.mark.parametrize("name", PROJECTS)
def test_it_is_run_both_ways(name: str) -> None:
    """Here it is only made sure that none is left out."""
    text = (Path(projects.__file__).parent / f"test_{name}.py").read_text()
    # By the fixture of all examples, or by itself.
    assert "ray: Run" in text or "ray: Done" in text or ("projects.on_raycelery(NAME" in text and '"actors")' in text)
